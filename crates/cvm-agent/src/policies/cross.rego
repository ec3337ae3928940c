# The agent's own cross-verification policy: is the peer's machine what was built? policies/cross.rego on p4 replaces it.
#
# Before it is asked, the agent has verified the quote, its binding, the builder's signatures, that the registers are
# the signed reference's after the handoff, and that a party's key holder certified the attestation key. A virtual TPM
# proves nothing against its host: `tpm.trust` says what the parties' key holders thought of it, and
# `tpm.ek_root_sha256` which root endorses it. A policy of your own may name them.
package policy

import rego.v1

default allow := false

evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]

allow if {
	evidence.tpm.phase == "after-handoff"
	count(evidence.tpm.endorsements) > 0
	count(deny) == 0
}

deny contains "no TPM evidence: for SEV-SNP and TDX alone, name the image's measurements in policies/cross.rego" if {
	not evidence.tpm
}

deny contains "no party certified the peer's attestation key" if {
	count(evidence.tpm.endorsements) == 0
}
