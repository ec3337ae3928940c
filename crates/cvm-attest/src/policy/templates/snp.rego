known contains "snp" if {
	some platform in snp_platforms
	cpu.snp.measurement == platform.measurement
	snp_tcb_suffices(platform)
}

snp_tcb_suffices(platform) if not platform.min_tcb

snp_tcb_suffices(platform) if {
	every part, least in platform.min_tcb {
		cpu.snp[sprintf("reported_tcb_%s", [part])] >= least
	}
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
	some part, least in platform.min_tcb
	found := object.get(cpu.snp, sprintf("reported_tcb_%s", [part]), -1)
	found < least
	msg := sprintf("snp: the TCB's %s is %v, below %v", [part, found, least])
}
