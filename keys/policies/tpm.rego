# A party's release policy for CVMs whose evidence is a TPM's. Copy it, name your roots, and give it
# to `flare-cvm ceremony init --policy`: its SHA-256 goes into the transcript that all parties sign.
#
# A virtual TPM that the host runs proves nothing against that host: claims say "untrusted-host", and
# accepting them, as the last rule here does, is this policy's own decision.
package policy

import rego.v1

default allow := false

# Manufacturers of TPMs that this party accepts: SHA-256 of the root certificate's DER.
ek_roots := {"@EK_ROOT_SHA256@"}

# Firmware's boot chain, Secure Boot's keys, command line and initramfs, the UKI, and what could be slipped in beside it.
required := {"4", "7", "9", "11", "12", "13"}

accepted_trust := {"untrusted-host"}

# What a machine may keep, by the root that endorsed its TPM: "bind" makes the keys of the job store need this
# machine (moving it then needs all parties again), "offline" lets it keep p3's key, so that p3 opens without
# the network. Only a TPM that the host cannot read or copy is worth that; none is trusted so far.
trusted_machines := {}

machine contains word if {
	allow
	some word in trusted_machines[tpm.ek_root_sha256]
}

tpm := input.submods.cpu0["ear.veraison.annotated-evidence"].tpm

allow if {
	tpm.ek_root_sha256 in ek_roots
	tpm.trust in accepted_trust
	tpm.handed_off == false
	every pcr in required {
		tpm.pcrs[pcr] == data.reference.tpm.pcrs[pcr]
	}
}
