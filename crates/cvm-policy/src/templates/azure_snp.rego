deny contains msg if {
	some platform in azure_platforms
	platform.tee == "az-snp-vtpm"
	azure_measurement(platform.tee) == platform.measurement
	some msg in tcb_below(platform.tee, platform)
}
