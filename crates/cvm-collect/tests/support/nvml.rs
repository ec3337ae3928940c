//! NVIDIA's NVML, as a library that a C compiler makes here: every GPU gives the same recorded
//! report, with the nonce that it was asked for put in.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = r#"
#include <string.h>
#include <stdio.h>
typedef struct {
    unsigned cec, size, cec_size;
    unsigned char nonce[32], report[8192], cec_report[4096];
} report_t;
typedef struct {
    unsigned size, attestation_size;
    unsigned char chain[4096], attestation_chain[5120];
} chain_t;
static unsigned load(const char *name, unsigned char *to, unsigned limit) {
    char path[4096]; snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    FILE *file = fopen(path, "rb"); unsigned n = fread(to, 1, limit, file); fclose(file); return n;
}
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "fake"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)8; return 0; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) {
    strcpy(uuid, "GPU-0");
    return 0;
}
int nvmlDeviceGetConfComputeGpuAttestationReport(void *device, report_t *out) {
    if (CODE) return CODE;
    out->size = load("report.bin", out->report, sizeof out->report);
    if (!STALE) memcpy(out->report + 4, out->nonce, 32);
    if (TOOLONG) out->size = 9000;
    return 0;
}
static unsigned ready = 0;
int nvmlSystemSetConfComputeGpusReadyState(unsigned to) {
    if (CODE) return CODE;
    if (!DEAF) ready = to;
    return 0;
}
int nvmlSystemGetConfComputeGpusReadyState(unsigned *is) { *is = ready; return 0; }
int nvmlDeviceGetConfComputeGpuCertificate(void *device, chain_t *out) {
    unsigned length = load("chain.pem", out->attestation_chain, sizeof out->attestation_chain);
    out->attestation_size = length + 1;
    return 0;
}
"#;

/// The library with these definitions changed, and the folder that it lies in.
pub fn library(define: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let evidence = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/evidence/gpu/h100-545.00-e2e");
    fs::write(folder.path().join("nvml.c"), SOURCE).unwrap();
    for file in ["report.bin", "chain.pem"] {
        fs::copy(evidence.join(file), folder.path().join(file)).unwrap();
    }
    let path = folder.path().join("libnvidia-ml.so.1");
    let defaults = ["COUNT=2", "CODE=0", "STALE=0", "TOOLONG=0", "DEAF=0"];
    let name = define.split('=').next().unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]).arg(&path).arg(folder.path().join("nvml.c"));
    command.arg(format!("-DFOLDER=\"{}\"", folder.path().display()));
    command.args(
        defaults.iter().filter(|d| !d.starts_with(&format!("{name}="))).map(|d| format!("-D{d}")),
    );
    command.arg(format!("-D{define}"));
    assert!(command.status().unwrap().success());
    (folder, path)
}
