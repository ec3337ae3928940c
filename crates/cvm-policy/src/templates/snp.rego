known contains "snp" if {
	some platform in snp_platforms
	cpu.snp.measurement == platform.measurement
	count(tcb_below("snp", platform)) == 0
}

deny contains msg if {
	cpu.snp
	found := object.get(cpu.snp, "measurement", "absent")
	not found in {platform.measurement | some platform in snp_platforms}
	msg := sprintf("snp: the launch digest is %v, expected one of %v", [found, {platform.measurement | some platform in snp_platforms}])
}

deny contains msg if {
	some platform in snp_platforms
	cpu.snp.measurement == platform.measurement
	some msg in tcb_below("snp", platform)
}
