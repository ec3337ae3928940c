# TDX, native or under Azure's paravisor. What Intel's status of a platform means for you is your decision.
tdx_accepted_tcb := {"UpToDate"}

tdx_accepted_advisories := set()

tdx_evidence[kind] := evidence if {
	some kind in ["tdx", "az-tdx-vtpm"]
	evidence := cpu[kind]
}

deny contains msg if {
	some kind, tdx in tdx_evidence
	found := object.get(tdx, ["td_attributes", "debug"], "absent")
	found != false
	msg := sprintf("%s: td_attributes.debug is %v, expected false", [kind, found])
}

deny contains msg if {
	some kind, tdx in tdx_evidence
	found := object.get(tdx, "tcb_status", "absent")
	not found in tdx_accepted_tcb
	msg := sprintf("%s: tcb_status is %v, which tdx_accepted_tcb does not name", [kind, found])
}

deny contains msg if {
	some kind, tdx in tdx_evidence
	some advisory in object.get(tdx, "advisory_ids", ["absent"])
	not advisory in tdx_accepted_advisories
	msg := sprintf("%s: the advisory %v is open, and tdx_accepted_advisories does not name it", [kind, advisory])
}
