# SEV-SNP, native or under Azure's paravisor.
snp_evidence[kind] := evidence if {
	some kind in ["snp", "az-snp-vtpm"]
	evidence := cpu[kind]
}

deny contains msg if {
	some kind, snp in snp_evidence
	some name in ["policy_debug_allowed", "policy_migrate_ma"]
	found := object.get(snp, name, "absent")
	found != false
	msg := sprintf("%s: %s is %v, expected false", [kind, name, found])
}

deny contains msg if {
	some kind, snp in snp_evidence
	found := object.get(snp, "vmpl", "absent")
	found != 0
	msg := sprintf("%s: vmpl is %v, expected 0", [kind, found])
}

# The least firmware of a machine: a floor for its product and stepping, or else for its product. Versions of two
# products say nothing about each other, and microcode counts anew with each stepping. It holds of what the chip's
# certificate vouches for, and of the firmware that launched the guest. A claim that is absent is below every floor.
floor_of(snp, platform) := object.get(platform.tcb_floor, chip, object.get(platform.tcb_floor, snp.product, {})) if {
	chip := sprintf("%s-%s", [snp.product, object.get(snp, "stepping", "?")])
}

tcb_parts := {
	"Milan": ["bootloader", "tee", "snp", "microcode"],
	"Genoa": ["bootloader", "tee", "snp", "microcode"],
	"Siena": ["bootloader", "tee", "snp", "microcode"],
	"Turin": ["fmc", "bootloader", "tee", "snp", "microcode"],
}

tcb_named(snp, platform) if {
	count(floor_of(snp, platform)) > 0
	tcb_parts[snp.product]
}

tcb_below(kind, platform) := {msg |
	snp := snp_evidence[kind]
	not tcb_named(snp, platform)
	msg := sprintf("%s: no TCB floor is stated for %v-%v", [kind, object.get(snp, "product", "?"), object.get(snp, "stepping", "?")])
} | {msg |
	snp := snp_evidence[kind]
	floor := floor_of(snp, platform)
	some part in tcb_parts[snp.product]
	shown := {
		"reported": object.get(snp, sprintf("reported_tcb_%s", [part]), -1),
		"launch": object.get(snp, ["launch_tcb", part], -1),
	}
	some version, found in shown
	found < object.get(floor, part, 256)
	msg := sprintf("%s: the %s TCB's %s is %v, below %v", [kind, version, part, found, object.get(floor, part, "any")])
}
