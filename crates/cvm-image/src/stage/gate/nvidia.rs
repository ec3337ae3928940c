//! NVIDIA's driver, which some profiles add.

use std::{fs, path::Path};

use super::{
    super::driver,
    files::{exists, list},
};
use crate::{boot::libraries, tree};

/// Signed modules, the units that use them, programs with their libraries, firmware.
pub(super) fn nvidia_driver(tree: &Path) -> Result<(), String> {
    let kernels = list(tree, "/usr/lib/modules")?;
    if kernels.is_empty() {
        return Err("there is no kernel for it to belong to".into());
    }
    for kernel in kernels {
        for name in ["nvidia.ko", "nvidia-uvm.ko"] {
            let module =
                fs::read(kernel.join("updates").join(name)).map_err(|e| format!("{name}: {e}"))?;
            if !module.ends_with(driver::MARK) {
                return Err(format!("{name} is not signed: the kernel would not load it"));
            }
        }
    }
    for (drop_in, problem) in [
        ("cvm-jobs.service.d/nvidia.conf", "cvm-jobs.service does not start the driver"),
        ("cvm-agent.service.d/nvidia.conf", "cvm-agent.service cannot ask the GPUs for evidence"),
        ("nvflare.service.d/zz-gpus.conf", "nvflare.service sees no GPU"),
    ] {
        if !exists(tree, &format!("/etc/systemd/system/{drop_in}")) {
            return Err(problem.into());
        }
    }
    for program in [
        "/usr/bin/nvidia-modprobe",
        "/usr/bin/nvidia-persistenced",
        "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
        "/usr/local/nvidia/lib64/libcuda.so.1",
        "/usr/local/nvidia/lib64/libnvidia-ptxjitcompiler.so.1",
    ] {
        libraries::closure(tree, &tree::inside(tree, program))
            .map_err(|e| format!("{program}: {e}"))?;
    }
    let firmware = list(tree, "/usr/lib/firmware/nvidia")?;
    if !firmware.iter().any(|version| version.join("gsp_ga10x.bin").is_file()) {
        return Err("/usr/lib/firmware/nvidia has no gsp_ga10x.bin".into());
    }
    Ok(())
}
