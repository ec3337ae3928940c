# Loads the image's own module, the same with one byte changed, and the same without its signature:
# each in the kernel's words.
module="/usr/lib/modules/$(uname -r)/updates/nvidia.ko"
size=$(stat -c %s "$module")
try() {
    echo "probe: $1: $(insmod "$2" 2>&1)"
}
modprobe ecdh_generic
try genuine "$module"
cp "$module" /run/changed.ko
printf X | dd of=/run/changed.ko bs=1 seek=$((size / 2)) conv=notrunc status=none
try changed /run/changed.ko
# The signature's length stands before the mark of 28 bytes; 12 bytes of header belong to it.
length=$(tail -c 32 "$module" | head -c 4 | od -An -tu4 --endian=big)
head -c $((size - 28 - 12 - length)) "$module" > /run/unsigned.ko
try unsigned /run/unsigned.ko
rm /run/changed.ko /run/unsigned.ko
echo "probe: loaded: $(cut -d' ' -f1 /proc/modules | tr '\n' ' ')"
timeout 2 cat /dev/kmsg | while read -r line; do
    case $line in
    *NVRM* | *nvidia* | *odule* | *integrity* | *X.509*) echo "kernel: ${line#*;}" ;;
    esac
done
echo "probe: end"
