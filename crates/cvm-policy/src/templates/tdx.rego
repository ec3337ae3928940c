known contains "tdx" if {
	some platform in tdx_platforms
	every register in ["mr_td", "rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3"] {
		cpu.tdx.quote.body[register] == platform.registers[register]
	}
}

acpi_compared if {
	some platform in tdx_platforms
	cpu.tdx.quote.body.mr_td == platform.registers.mr_td
	cpu.tdx.quote.body.rtmr_0 == platform.registers.rtmr_0
}

deny contains msg if {
	body := object.get(cpu.tdx, ["quote", "body"], {})
	some register in ["mr_td", "rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3"]
	found := object.get(body, register, "absent")
	expected := {platform.registers[register] | some platform in tdx_platforms}
	not found in expected
	msg := sprintf("tdx: %s is %v, expected one of %v", [register, found, expected])
}
