# Azure: the TEE measures Azure's paravisor, whose vTPM measures the image.
azure_measurement(kind) := cpu[kind].measurement if kind == "az-snp-vtpm"

azure_measurement(kind) := cpu[kind].quote.body.mr_td if kind == "az-tdx-vtpm"

known contains kind if {
	some platform in azure_platforms
	kind := platform.tee
	azure_measurement(kind) == platform.measurement
	count(platform.pcrs) > 0
	every pcr, value in platform.pcrs {
		cpu[kind].tpm[pcr] == value
	}
}

deny contains msg if {
	some kind in ["az-snp-vtpm", "az-tdx-vtpm"]
	cpu[kind]
	expected := {platform.measurement | some platform in azure_platforms; platform.tee == kind}
	not azure_measurement(kind) in expected
	msg := sprintf("%s: the paravisor's measurement is not one of %v", [kind, expected])
}

deny contains msg if {
	some platform in azure_platforms
	azure_measurement(platform.tee) == platform.measurement
	some pcr, value in platform.pcrs
	found := object.get(cpu[platform.tee], ["tpm", pcr], "absent")
	found != value
	msg := sprintf("%s: %s is %v, expected %s", [platform.tee, pcr, found, value])
}
