# GPUs: each a submodule, or several in one under `devices`.
nvidia_evidence := [evidence |
	some submod in input.submods
	evidence := submod["ear.veraison.annotated-evidence"].nvidia
]

nvidia_devices := array.concat(
	[device | some device in nvidia_evidence; not device.devices],
	[device | some evidence in nvidia_evidence; some device in evidence.devices],
)

nvidia_gpus := [device | some device in nvidia_devices; object.get(device, "x-nvidia-device-type", "gpu") == "gpu"]

nvidia_expected if count(nvidia_devices) > 0

nvidia_expected if nvidia_required

deny contains msg if {
	nvidia_expected
	not nvidia_count_suffices
	msg := sprintf("nvidia: %d GPUs, expected %v", [count(nvidia_gpus), object.get(nvidia, "gpus", "at least 1")])
}

nvidia_count_suffices if {
	not nvidia.gpus
	count(nvidia_gpus) > 0
}

nvidia_count_suffices if count(nvidia_gpus) == nvidia.gpus

deny contains msg if {
	some device in nvidia_devices
	some name, value in {"measres": "success", "secboot": true, "dbgstat": "disabled"}
	found := object.get(device, name, "absent")
	found != value
	msg := sprintf("nvidia: %s is %v, expected %v", [name, found, value])
}

deny contains msg if {
	some device in nvidia_gpus
	found := object.get(device, "x-nvidia-gpu-attestation-report-nonce-match", "absent")
	found != true
	msg := sprintf("nvidia: the report's nonce was not matched (%v)", [found])
}

deny contains msg if {
	some device in nvidia_gpus
	some name, list in {
		"hwmodel": "models",
		"x-nvidia-gpu-driver-version": "driver_versions",
		"x-nvidia-gpu-vbios-version": "vbios_versions",
	}
	expected := nvidia[list]
	count(expected) > 0
	found := object.get(device, name, "absent")
	not found in expected
	msg := sprintf("nvidia: %s is %v, expected one of %v", [name, found, expected])
}
