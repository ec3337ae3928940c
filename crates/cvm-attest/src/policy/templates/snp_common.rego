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
