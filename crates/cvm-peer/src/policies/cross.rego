# The agent's own cross-verification policy: is the peer's machine what was built? policies/cross.rego on p4 replaces it.
#
# Before it is asked, the agent has verified the evidence, its binding, the builder's signatures, and that what was
# measured is the signed reference's: after the handoff where a register shows it (TPM, TDX). SEV-SNP has none; its report
# shows the image on firmware that is no older than the reference's tcb_floor, and only the running system makes statements
# ("not-shown"). "other" is a machine of a kind for which
# the image has no reference values: only a policy of your own can know what it must measure.
#
# A virtual TPM proves nothing against its host: `tpm.trust` says what the parties' key holders thought of it, and
# `tpm.ek_root_sha256` which root endorses it. A policy of your own may name them.
#
# Where the peer's image requires GPUs, the agent has seen at least one, each genuine and answering this token. That they
# are as NVIDIA published them is known where p1's collateral.json has its manifests; without them "rim" was not checked,
# and the peer is refused. "ocsp": nobody was asked whether NVIDIA revoked a GPU's certificates.
package policy

import rego.v1

default allow := false

evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]

# As in keys/policies. Without Intel's collateral "tcb-status" was not checked, and a TD is refused. "acpi"
# accepts SEV-SNP and TPMs although nobody measured the ACPI code of the peer's host, which its kernel
# runs: the parties' key holders were asked the same by name before they gave this peer its halves. A
# policy of your own may refuse it, or compare PCR 0 and 1.
accepted_not_checked := {"acpi", "certificate-revocation", "event-log", "host-data", "ocsp"}

tdx_tcb := {"UpToDate"}

# "SPT" is one GPU, "MPT" several with encrypted links between them; in "PPCIE" those links are in clear.
gpu_modes := {"SPT", "MPT"}

gpus[name] := gpu if {
	some name, submod in input.submods
	startswith(name, "gpu")
	gpu := object.get(submod, ["ear.veraison.annotated-evidence", "nvidia"], {})
}

allow if {
	evidence.tpm.phase == "after-handoff"
	count(evidence.tpm.endorsements) > 0
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
	evidence.tdx.tcb_status in tdx_tcb
	count(evidence.tdx.advisory_ids) == 0
	count(deny) == 0
}

deny contains "no evidence that this policy knows: TPM, SEV-SNP, TDX" if {
	not evidence.tpm
	not evidence.snp
	not evidence.tdx
}

deny contains "no party certified the peer's attestation key" if {
	count(evidence.tpm.endorsements) == 0
}

deny contains sprintf("the peer's image has no reference values for %s: provision it with the measurements of its hosts, or name them in policies/cross.rego", [kind]) if {
	some kind in ["snp", "tdx"]
	evidence[kind].phase == "other"
}

deny contains sprintf("Intel says of the peer's platform: %s %v", [evidence.tdx.tcb_status, evidence.tdx.advisory_ids]) if {
	not evidence.tdx.tcb_status in tdx_tcb
}

deny contains sprintf("%s of the peer is not in the state and mode that a GPU for confidential computing must be in", [name]) if {
	some name, gpu in gpus
	not good(gpu)
}

good(gpu) if {
	gpu["x-nvidia-gpu-attestation-report-nonce-match"] == true
	gpu.measres == "success"
	gpu.secboot == true
	gpu.dbgstat == "disabled"
	object.get(gpu, "x-nvidia-gpu-mode", "unstated") in gpu_modes
}
