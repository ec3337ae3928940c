# A virtual TPM that the host runs proves nothing against that host ("untrusted-host"). Naming the root that endorses
# it, above, and its trust here is this policy's own decision.
tpm_accepted_trust := {"untrusted-host"}

known contains "tpm" if {
	count(tpm_pcrs) > 0
	every pcr, value in tpm_pcrs {
		cpu.tpm[pcr] == value
	}
}

# PCR 0 and 1 are of the site's firmware and virtual hardware, not of the image. tpm_firmware, above, names
# those whose firmware measures the host's ACPI tables into PCR 1 (`flare-cvm policy firmware`); without
# any, "acpi" stays unchecked.
tpm_firmware_known if {
	some firmware in tpm_firmware
	cpu.tpm.pcr00 == firmware.pcr0
	cpu.tpm.pcr01 == firmware.pcr1
}

acpi_compared if tpm_firmware_known

deny contains msg if {
	cpu.tpm
	count(tpm_firmware) > 0
	not tpm_firmware_known
	found := [object.get(cpu.tpm, pcr, "absent") | some pcr in ["pcr00", "pcr01"]]
	msg := sprintf("tpm: PCR 0 and 1 are %v, which tpm_firmware does not name", [found])
}

deny contains msg if {
	cpu.tpm
	some pcr, value in tpm_pcrs
	found := object.get(cpu.tpm, pcr, "absent")
	found != value
	msg := sprintf("tpm: %s is %v, expected %s", [pcr, found, value])
}

deny contains msg if {
	cpu.tpm
	# A key holder followed the endorsement key; from files alone it is the attestation key's own certificate.
	root := object.get(cpu.tpm, "ek_root_sha256", object.get(cpu.tpm, "ak_root_sha256", "absent"))
	not root in tpm_ek_roots
	msg := sprintf("tpm: it is endorsed by the root %v, which tpm_ek_roots does not name", [root])
}

deny contains msg if {
	cpu.tpm
	trust := object.get(cpu.tpm, "trust", "absent")
	not trust in tpm_accepted_trust
	msg := sprintf("tpm: its trust is %v, which tpm_accepted_trust does not name", [trust])
}
