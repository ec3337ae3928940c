#!/bin/sh
# Starts the sealed VM beside this script. Set any of these first:
#   CVM_TPM_STATE  folder of a software TPM's state, made at first use; without it the VM has no TPM
#   CVM_FORWARD    QEMU host forwards (default "tcp:127.0.0.1:8002-:8002 tcp:127.0.0.1:8003-:8003")
#   CVM_MONITOR    socket of QEMU's monitor, where `system_powerdown` presses the power button
#   CVM_USER_DATA  ext4 without partitions, read at /user_data (user_data.qcow2, if it is there)
#   CVM_SERIAL     file for the console (this terminal)
#   CVM_MEMORY     MiB (2048)
#   CVM_CPUS       (2; emulated 1)
# A changed boot loader or kernel ends in "No bootable option or device was found": stop it with
# Ctrl-C. Under SEV-SNP: the AmdSev firmware (-bios, no pflash, no SMM), -object sev-snp-guest,
# -cpu EPYC-v4.
set -eu
fail() { echo "launch_vm.sh: $1" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is not installed: apt-get install $2"; }
cd "$(dirname "$0")"; need qemu-system-x86_64 qemu-system-x86
for file in disk.qcow2 OVMF_CODE.fd OVMF_VARS.fd; do
    [ -r $file ] || fail "no $file to read: unpack the whole bundle"
done
# /dev/kvm may exist where KVM cannot run: it is used only where a vendor's module is loaded.
if [ -w /dev/kvm ] && grep -qsE '^kvm_(intel|amd) ' /proc/modules; then
    set -- -accel kvm -cpu host; cpus=2
else
    # QEMU before 8.1 runs old code where another processor patched it, and gives cmpxchg16b wrong
    # flags: rare panics.
    set -- -accel tcg,thread=multi -cpu max,-cx16; cpus=1
fi
ports=${CVM_FORWARD-tcp:127.0.0.1:8002-:8002 tcp:127.0.0.1:8003-:8003}
for forward in $ports; do forwards="${forwards:-},hostfwd=$forward"; done
if [ -n "${CVM_TPM_STATE:-}" ]; then
    need swtpm swtpm && need swtpm_setup swtpm-tools
    mkdir -p "$CVM_TPM_STATE"; state=$(cd "$CVM_TPM_STATE" && pwd)
    [ -e "$state/tpm2-00.permall" ] ||
        swtpm_setup --tpm2 --tpmstate "$state" --pcr-banks sha256 --create-ek-cert \
            >"$state/setup.log" 2>&1 ||
        fail "the TPM could not be made: see $state/setup.log"
    swtpm socket --tpm2 --tpmstate "dir=$state" --ctrl "type=unixio,path=$state/socket" \
        --daemon --terminate
    set -- "$@" -chardev "socket,id=tpm,path=$state/socket" \
        -tpmdev emulator,id=tpm,chardev=tpm -device tpm-crb,tpmdev=tpm
fi
data=${CVM_USER_DATA:-user_data.qcow2}
if [ -r "$data" ]; then
    case $data in *.qcow2) format=qcow2 ;; *) format=raw ;; esac
    set -- "$@" -drive "if=none,id=user_data,readonly=on,format=$format,file=$data" \
        -device virtio-blk-pci,drive=user_data,serial=user_data
elif [ -n "${CVM_USER_DATA:-}" ]; then
    fail "$data is missing or unreadable: it is CVM_USER_DATA"
fi
# Nothing else to boot from; every start sees the bundle's firmware variables; a panic or a reboot
# ends the VM.
exec qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none "$@" \
    -machine q35,smm=on -m "${CVM_MEMORY:-2048}" -smp "${CVM_CPUS:-$cpus}" \
    -global driver=cfi.pflash01,property=secure,value=on -global ICH9-LPC.disable_s3=1 \
    -drive if=pflash,unit=0,format=raw,readonly=on,file=OVMF_CODE.fd \
    -drive if=pflash,unit=1,format=raw,snapshot=on,file=OVMF_VARS.fd \
    -drive if=none,id=disk,format=qcow2,file=disk.qcow2 \
    -device virtio-blk-pci,drive=disk,bootindex=0 \
    -netdev "user,id=net${forwards:-}" -device virtio-net-pci,netdev=net,romfile= \
    -monitor "${CVM_MONITOR:+unix:}${CVM_MONITOR:-none}${CVM_MONITOR:+,server=on,wait=off}" \
    -device virtio-rng-pci -serial "${CVM_SERIAL:+file:}${CVM_SERIAL:-stdio}"
