# What nvflare.service would see: CUDA's library on its path, and the GPUs' devices alone.
import ctypes
import os

for name in (
    "libcuda.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-pkcs11-openssl3.so.550.163.01",
):
    ctypes.CDLL(name)
    print("probe: loaded", name)
# 100: no device. A library that is not whole would not come so far.
print("probe: cuInit", ctypes.CDLL("libcuda.so.1").cuInit(0))
with open("/dev/nvidia3", "rb") as device:
    print("probe: nvidia3 reads", device.read(2).hex())
print(
    "probe: devices:",
    *sorted(name for name in os.listdir("/dev") if name.startswith(("nvidia", "vd", "sd", "tpm"))),
)
