package policy

import rego.v1

default allow := false

allow if {
	count(known) > 0
	count(deny) == 0
}

# Checks that evidence may have gone without, by name: {"certificate-revocation"}. Every other one that was left out
# is a reason to refuse.
accepted_not_checked := set()

deny contains msg if {
	some submod in input.submods
	some claims in submod["ear.veraison.annotated-evidence"]
	some entry in claims.not_checked
	not entry.check in accepted_not_checked
	msg := sprintf("%v was not checked, and accepted_not_checked does not list it", [object.get(entry, "check", entry)])
}

# The CPU's evidence, or the TPM's of a machine that shows no TEE's; and its kinds, each of which must be known to this
# policy. (A key holder's token names a TPM as the CPU's evidence, too.)
cpu := input.submods.cpu0["ear.veraison.annotated-evidence"]

cpu := input.submods.tpm0["ear.veraison.annotated-evidence"] if not input.submods.cpu0

kinds contains kind if {
	some kind in ["tpm", "snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm", "sgx", "sample"]
	cpu[kind]
}

deny contains "no evidence of the machine's CPU or TPM" if count(kinds) == 0

deny contains msg if {
	some kind in kinds
	not kind in known
	msg := sprintf("%v: its measurements are not this image's on any platform named here", [kind])
}
