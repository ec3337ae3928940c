# The agent's own self-verification policy: is this machine still what was built? policies/self.rego on p4 replaces it.
#
# Before it is asked, the agent has verified its own evidence as it verifies a peer's, and compared what was measured with
# the signed reference. A TPM's attestation key needs nobody's word: the agent asked the TPM itself. What a vendor thinks
# of the platform and of its GPUs was the key holders' to judge; a list that expires shall not stop a machine that runs.
# A GPU that answers no more, or that differs from NVIDIA's manifests where they are at hand, has stopped it already.
# "acpi": code of the host's that has taken this kernel over answers here as well; asking gains nothing.
package policy

import rego.v1

default allow := false

evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]

accepted_not_checked := {
	"acpi",
	"attestation-key-certificate", "certificate-revocation", "event-log", "fwid", "host-data", "ocsp", "qe-identity", "rim",
	"tcb-status",
}

allow if {
	evidence.tpm.phase == "after-handoff"
	count(deny) == 0
}

allow if {
	evidence.snp.phase == "not-shown"
	evidence.snp.trust == "tee"
	count(deny) == 0
}

allow if {
	evidence.tdx.phase == "after-handoff"
	evidence.tdx.trust == "tee"
	count(deny) == 0
}

deny contains "no evidence that this policy knows: TPM, SEV-SNP, TDX" if {
	not evidence.tpm
	not evidence.snp
	not evidence.tdx
}

deny contains sprintf("this image has no reference values for %s: provision it with the measurements of its hosts, or name them in policies/self.rego", [kind]) if {
	some kind in ["snp", "tdx"]
	evidence[kind].phase == "other"
}
