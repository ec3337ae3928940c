# A party's release policy for CVMs that attest with SEV-SNP, TDX, or one of them behind Azure's
# vTPM. Give it to `flare-cvm ceremony init --policy`: its SHA-256 goes into the transcript that all
# parties sign.
#
# The key holder itself refuses debug and migratable guests, reports of another VMPL than 0,
# measurements that are not the image's reference values, and a TCB below theirs or of a product
# that they do not name; they are here too, because this text is what both owners sign. A stock
# Trustee, which compares nothing by itself, does not run this policy (`data.reference`): write one
# for it with `flare-cvm policy new`.
package policy

import rego.v1

default allow := false

# Checks that evidence may have gone without, by name. "host-data": nothing here depends on what the
# host gives at launch. "certificate-revocation": without AMD's lists in collateral/ nobody knows
# whether an intermediate was revoked; remove it once they are there. "event-log": a TD's registers
# are compared as they are. "ocsp": nobody was asked whether NVIDIA revoked a GPU's certificates.
#
# "acpi", for SEV-SNP and Azure: the guest's kernel runs the code in the host's ACPI tables, which
# may write any of its memory before PID 1, and no launch digest covers them ("BadAML"; SECURITY.md
# says what there is against it). With this word the policy accepts such a guest all the same, and
# trusts its host not to attack it in this way. Take the word out to refuse SEV-SNP; a TD's RTMR0,
# which covers the tables, is compared below.
accepted_not_checked := {"acpi", "certificate-revocation", "event-log", "host-data", "ocsp"}

# What Intel says of a TDX platform, and what of it is accepted. Nothing is known without Intel's
# collateral: its check "tcb-status" is then refused, as it is not named above.
tdx_tcb := {"UpToDate"}

tdx_advisories := set()

# What a machine may keep: "bind" makes the keys of the job store need this chip (SEV-SNP derives a
# key for exactly this image); moving it then needs all parties again.
machine contains "bind" if {
	allow
	snp_may_bind
}

snp_may_bind := false

evidence := input.submods.cpu0["ear.veraison.annotated-evidence"]

allow if {
	not late
	machine_ok
}

allow if {
	late
	machine_ok
	gpus_ok
}

machine_ok if snp_ok(evidence.snp)

machine_ok if tdx_ok(evidence.tdx)

machine_ok if {
	snp_guest(evidence["az-snp-vtpm"])
	some platform in azure_platforms("snp", evidence["az-snp-vtpm"].measurement)
	azure_ok(evidence["az-snp-vtpm"], platform)
	tcb_suffices(evidence["az-snp-vtpm"], platform)
}

machine_ok if {
	td(evidence["az-tdx-vtpm"])
	some platform in azure_platforms("tdx", evidence["az-tdx-vtpm"].quote.body.mr_td)
	azure_ok(evidence["az-tdx-vtpm"], platform)
}

snp_guest(snp) if {
	snp.trust == "tee"
	snp.policy_debug_allowed == false
	snp.policy_migrate_ma == false
	snp.vmpl == 0
}

snp_ok(snp) if {
	snp_guest(snp)
	some platform in data.reference.snp
	snp.measurement == platform.measurement
	tcb_suffices(snp, platform)
}

# The least firmware, which the reference values state for each product and stepping ("tcb_floor":
# {"Milan-B1": …}): versions of two products say nothing about each other, and microcode counts anew
# with each stepping. It holds of what the chip's certificate vouches for, and of the firmware that
# launched the guest. Without a floor there is no key.
tcb_suffices(snp, platform) if {
	floor := floor_of(snp, platform)
	parts := tcb_parts[snp.product]
	every part in parts {
		snp[sprintf("reported_tcb_%s", [part])] >= floor[part]
		snp.launch_tcb[part] >= floor[part]
	}
}

floor_of(snp, platform) := object.get(platform.tcb_floor, chip, of_product) if {
	of_product := object.get(platform.tcb_floor, snp.product, {})
	chip := sprintf("%s-%s", [snp.product, object.get(snp, "stepping", "?")])
}

tcb_parts := {
	"Milan": ["bootloader", "tee", "snp", "microcode"],
	"Genoa": ["bootloader", "tee", "snp", "microcode"],
	"Siena": ["bootloader", "tee", "snp", "microcode"],
	"Turin": ["fmc", "bootloader", "tee", "snp", "microcode"],
}

td(tdx) if {
	tdx.trust == "tee"
	tdx.td_attributes.debug == false
	tdx.td_attributes.migratable == false
	tdx.tcb_status in tdx_tcb
	is_array(tdx.advisory_ids)
	every advisory in tdx.advisory_ids {
		advisory in tdx_advisories
	}
}

tdx_ok(tdx) if {
	td(tdx)
	some platform in data.reference.tdx
	body := tdx.quote.body
	[body.mr_td, body.rtmr_0, body.rtmr_1, body.rtmr_2, body.rtmr_3] ==
		[platform.mrtd, platform.rtmr0, platform.rtmr1, platform.rtmr2, platform.rtmr3]
}

azure_platforms(tee, measurement) := [platform |
	some platform in data.reference.azure
	platform.tee == tee
	platform.measurement == measurement
]

# What was started, and its phase: reference values may name more registers of the vTPM, and never
# fewer.
azure_required := {"4", "11"}

azure_ok(claims, platform) if {
	count(azure_required) > 0
	every pcr in azure_required {
		platform.pcrs[pcr]
	}
	every pcr, value in platform.pcrs {
		claims.tpm[sprintf("pcr%02d", [to_number(pcr)])] == value
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
