# A party's release policy for CVMs whose evidence is a TPM's. Copy it, name your roots, and give it
# to `flare-cvm ceremony init --policy`: its SHA-256 goes into the transcript that all parties sign.
#
# A virtual TPM that the host runs proves nothing against that host: claims say "untrusted-host",
# and accepting them, as the last rule here does, is this policy's own decision.
package policy

import rego.v1

default allow := false

# Manufacturers of TPMs that this party accepts: SHA-256 of the root certificate's DER.
ek_roots := {"@EK_ROOT_SHA256@"}

# Firmware's boot chain, Secure Boot's keys, command line and initramfs, the UKI, and what could be
# slipped in beside it.
required := {"4", "7", "9", "11", "12", "13"}

accepted_trust := {"untrusted-host"}

# Firmware and virtual hardware that this party knows, each as {"pcr0": …, "pcr1": …}, which
# `flare-cvm policy firmware LOG` prints from the event log of an honest machine. If any is named,
# PCR 0 and 1 must be one of these; a TPM of `trusted_machines` is only believed with one of them.
# Only firmware that measures the host's ACPI tables is worth naming, as Debian 13's OVMF.
firmware := set()

known_firmware if {
	some known in firmware
	tpm.pcrs["0"] == known.pcr0
	tpm.pcrs["1"] == known.pcr1
}

firmware_ok if known_firmware

firmware_ok if {
	count(firmware) == 0
	not trusted_machines[tpm.ek_root_sha256]
}

deny contains msg if {
	tpm
	not firmware_ok
	values := [tpm.pcrs["0"], tpm.pcrs["1"]]
	msg := sprintf("`firmware` does not name {\"pcr0\": \"%v\", \"pcr1\": \"%v\"}", values)
}

# What a machine may keep, by the root that endorsed its TPM: "bind" makes the keys of the job store
# need this machine (moving it then needs all parties again), "offline" lets it keep p3's key, so
# that p3 opens without the network. Only a TPM that the host cannot read or copy is worth that;
# none is trusted so far.
trusted_machines := {}

machine contains word if {
	allow
	some word in trusted_machines[tpm.ek_root_sha256]
}

# Checks that evidence may have gone without, by name. "ocsp": nobody was asked whether NVIDIA
# revoked a GPU's certificates. "acpi": the guest's kernel runs the code in the host's ACPI tables,
# which may write any of its memory before PID 1 ("BadAML"), and Debian 12's OVMF measures none of
# them. It is accepted here because a TPM that the host runs says nothing against that host anyhow;
# naming `firmware` compares them.
accepted_not_checked := {"acpi", "ocsp"}

checked contains "acpi" if known_firmware

tpm := input.submods.cpu0["ear.veraison.annotated-evidence"].tpm

allow if {
	not late
	tpm.handed_off == false
	machine_ok
}

allow if {
	late
	tpm.handed_off == true
	machine_ok
	gpus_ok
}

machine_ok if {
	tpm.ek_root_sha256 in ek_roots
	tpm.trust in accepted_trust
	count(required) > 0
	every pcr in required {
		tpm.pcrs[pcr] == data.reference.tpm.pcrs[pcr]
	}
}

# What is released after the handoff: the half of the job store's key of an image that requires
# GPUs, asked for by its running system. `data.reference` are then the values of that phase.
late if data["resource-path"][1] == "running-half"

# It takes at least so many GPUs, each genuine, with exactly NVIDIA's golden values, in this
# session, and in one of these modes: "SPT" is one GPU, "MPT" several with encrypted links between
# them. In "PPCIE" those links are in clear; firmware that states no mode is "unstated".
min_gpus := 1

gpu_modes := {"SPT", "MPT"}

gpus := [gpu |
	some name, submod in input.submods
	startswith(name, "gpu")
	gpu := object.get(submod, ["ear.veraison.annotated-evidence", "nvidia"], {})
]

gpus_ok if {
	count(gpus) >= max([min_gpus, 1])
	every gpu in gpus {
		gpu["x-nvidia-gpu-attestation-report-nonce-match"] == true
		gpu.measres == "success"
		gpu.secboot == true
		gpu.dbgstat == "disabled"
		object.get(gpu, "x-nvidia-gpu-mode", "unstated") in gpu_modes
	}
}
