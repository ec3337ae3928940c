//! NVML, played by a library that a C compiler makes here.

#[path = "../support/nvml.rs"]
mod library;

use cvm_collect::nvml::Nvml;
use library::library;

use super::*;

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
fn gpus_take_work_once_they_are_told_to() {
    let make_ready = |define: &str| {
        let (_folder, path) = library(define);
        Nvml::open(Some(&path)).unwrap().make_ready()
    };
    make_ready("COUNT=8").unwrap();
    assert_eq!(make_ready("CODE=4").unwrap_err().code(), "ATT-366");
    let error = make_ready("DEAF=1").unwrap_err();
    assert!(error.code() == "ATT-366" && error.to_string().contains("still not ready"), "{error}");
}

#[test]
fn gpus_that_are_not_there_not_confidential_or_answer_nonsense() {
    assert_eq!(
        Nvml::open(Some(Path::new("/nonexistent/nvml.so"))).err().unwrap().code(),
        "ATT-365"
    );
    let error = ask("CODE=3").unwrap_err();
    assert!(error.to_string().contains("not in confidential-computing mode"), "{error}");
    assert_eq!(ask("CODE=999").unwrap_err().code(), "ATT-366");
    assert_eq!(ask("COUNT=0").unwrap_err().code(), "ATT-365");
    assert_eq!(ask("COUNT=4000000000u").unwrap_err().code(), "ATT-367");
    assert_eq!(ask("STALE=1").unwrap_err().code(), "ATT-367");
    assert_eq!(ask("TOOLONG=1").unwrap_err().code(), "ATT-367");
}
