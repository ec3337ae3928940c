# The agent's own self-verification policy: is this machine still what was built? policies/self.rego on p4 replaces it.
#
# Before it is asked, the agent has verified its own quote as it verifies a peer's, and compared the registers with the
# signed reference. Its attestation key needs nobody's word: it asked the TPM itself.
package policy

import rego.v1

default allow := false

evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]

accepted_not_checked := {"attestation-key-certificate"}

allow if {
	evidence.tpm.phase == "after-handoff"
	count(deny) == 0
}

deny contains "no TPM evidence: for SEV-SNP and TDX alone, name the image's measurements in policies/self.rego" if {
	not evidence.tpm
}
