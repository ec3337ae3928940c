//! NVML, played by a library that a C compiler makes here.

use std::process::Command;

use cvm_attest::collect::nvml::Nvml;

use super::*;

const SOURCE: &str = r#"
#include <string.h>
#include <stdio.h>
typedef struct { unsigned cec, size, cec_size; unsigned char nonce[32], report[8192], cec_report[4096]; } report_t;
typedef struct { unsigned size, attestation_size; unsigned char chain[4096], attestation_chain[5120]; } chain_t;
static unsigned load(const char *name, unsigned char *to, unsigned limit) {
    char path[4096]; snprintf(path, sizeof path, "%s/%s", FOLDER, name);
    FILE *file = fopen(path, "rb"); unsigned n = fread(to, 1, limit, file); fclose(file); return n;
}
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "fake"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)8; return 0; }
int nvmlDeviceGetConfComputeGpuAttestationReport(void *device, report_t *out) {
    if (CODE) return CODE;
    out->size = load("report.bin", out->report, sizeof out->report);
    if (!STALE) memcpy(out->report + 4, out->nonce, 32);
    if (TOOLONG) out->size = 9000;
    return 0;
}
int nvmlDeviceGetConfComputeGpuCertificate(void *device, chain_t *out) {
    out->attestation_size = load("chain.pem", out->attestation_chain, sizeof out->attestation_chain) + 1;
    return 0;
}
"#;

/// The library with these definitions changed, and the folder that it lies in.
fn library(define: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("nvml.c"), SOURCE).unwrap();
    fs::write(folder.path().join("report.bin"), vector("gpu/h100-545.00-e2e/report.bin")).unwrap();
    fs::write(folder.path().join("chain.pem"), vector("gpu/h100-545.00-e2e/chain.pem")).unwrap();
    let path = folder.path().join("libnvidia-ml.so.1");
    let defaults = ["COUNT=2", "CODE=0", "STALE=0", "TOOLONG=0"];
    let name = define.split('=').next().unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]).arg(&path).arg(folder.path().join("nvml.c"));
    command.arg(format!("-DFOLDER=\"{}\"", folder.path().display()));
    command.args(defaults.iter().filter(|d| !d.starts_with(&format!("{name}="))).map(|d| format!("-D{d}")));
    command.arg(format!("-D{define}"));
    assert!(command.status().unwrap().success());
    (folder, path)
}

fn ask(define: &str) -> Result<Raw, CollectError> {
    let (_folder, path) = library(define);
    Nvml::open(Some(&path)).unwrap().evidence(&ASKED)
}

#[test]
fn every_gpu_attests_to_the_challenge() {
    let Raw::Gpus(gpus) = ask("COUNT=8").unwrap() else { panic!() };
    assert_eq!(gpus.len(), 8);
    assert_eq!(gpus[0].report[4..36], ASKED[..32]);
    assert_eq!(gpus[0].report.len(), vector("gpu/h100-545.00-e2e/report.bin").len());
    assert!(gpus[7].certificates == vector("gpu/h100-545.00-e2e/chain.pem"));
}

#[test]
fn gpus_that_are_not_there_not_confidential_or_answer_nonsense() {
    assert_eq!(Nvml::open(Some(Path::new("/nonexistent/nvml.so"))).err().unwrap().code(), "ATT-365");
    let error = ask("CODE=3").unwrap_err();
    assert!(error.to_string().contains("not in confidential-computing mode"), "{error}");
    assert_eq!(ask("CODE=999").unwrap_err().code(), "ATT-366");
    assert_eq!(ask("COUNT=0").unwrap_err().code(), "ATT-365");
    assert_eq!(ask("COUNT=4000000000u").unwrap_err().code(), "ATT-367");
    assert_eq!(ask("STALE=1").unwrap_err().code(), "ATT-367");
    assert_eq!(ask("TOOLONG=1").unwrap_err().code(), "ATT-367");
}
