package policy

import rego.v1

default allow := false

allow if {
	count(known) > 0
	count(deny) == 0
}

# Checks that evidence may have gone without, by name: {"certificate-revocation"}. Every other one that was left out
# is a reason to refuse.
#
# "acpi": the kernel runs the code in the host's ACPI tables with its own rights, before PID 1. Where a
# register that covers them is compared here (RTMR0 of a TD; PCR 0 and 1 that tpm_firmware names) it
# counts as checked. No launch digest of SEV-SNP or Azure covers them: who accepts such a machine by
# adding "acpi" trusts its host not to attack the guest in this way, or its firmware to bring tables of
# its own.
accepted_not_checked := set()

# Checks that this policy makes itself.
checked contains "acpi" if {
	acpi_compared

	# Another CPU's tables are other tables.
	not input.submods.cpu1
}

default acpi_compared := false

deny contains msg if {
	some submod in input.submods
	some claims in submod["ear.veraison.annotated-evidence"]
	some entry in claims.not_checked
	not entry.check in accepted_not_checked
	not entry.check in checked
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
