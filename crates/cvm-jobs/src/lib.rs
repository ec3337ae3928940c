//! The second stage of an image that requires GPUs: p5 and `state`, opened by the running system.
//!
//! This program links `cvm-init`'s library, on purpose: an area that a boot makes and one that the
//! running system makes must not differ, so the same code makes both. It uses the chapters of the
//! manifest, disk, site, exchange, areas and evidence, with the [`Stage::Running`] halves. What is
//! new is the evidence: [`Composite`], the CPU in its phase after the handoff, with every GPU
//! beside it.
//!
//! [`Stage::Running`]: cvm_layout::manifest::Stage::Running

use std::{error::Error, sync::Mutex};

use cvm_collect::{Device, gpus};
use cvm_init::codes::{Code, Coded, Failure};
use cvm_release::{binding::Binding, messages::Tee};
use cvm_release_https::Attester;
use serde_json::Value;

/// The CPU's evidence, and that of the machine's GPUs as additional evidence.
///
/// Both answer one session: the GPUs its nonce and key, the CPU these and the text of the GPUs'
/// evidence. So neither can be taken from, or to, another session.
pub struct Composite<'a> {
    cpu: &'a (dyn Attester + Sync),
    /// The driver makes one report at a time; exchanges wait for each other.
    gpus: Mutex<&'a mut dyn Device>,
}

impl<'a> Composite<'a> {
    /// With every GPU of `gpus`. Each must attest now, so that one that cannot is found out before
    /// anybody is asked.
    ///
    /// # Errors
    /// [`Code::Gpu`].
    pub fn new(cpu: &'a (dyn Attester + Sync), gpus: &'a mut dyn Device) -> Result<Self, Failure> {
        gpus::attest(gpus, &[0; 48]).code(Code::Gpu)?;
        Ok(Self { cpu, gpus: Mutex::new(gpus) })
    }
}

impl Attester for Composite<'_> {
    fn tee(&self) -> Tee {
        self.cpu.tee()
    }

    fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        self.cpu.auth_params()
    }

    fn additional(&self, binding: &Binding) -> Result<String, Box<dyn Error + Send + Sync>> {
        let mut gpus = self.gpus.lock().map_err(|_| "the GPUs were lost in another exchange")?;
        Ok(gpus::attest(&mut **gpus, &binding.0)?.additional_evidence())
    }

    fn evidence(
        &self,
        params: &str,
        binding: &Binding,
    ) -> Result<Value, Box<dyn Error + Send + Sync>> {
        self.cpu.evidence(params, binding)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cvm_collect::{CollectError, Kind, Raw, Recorded};

    use super::*;

    struct Cpu;

    impl Attester for Cpu {
        fn tee(&self) -> Tee {
            Tee::Snp
        }

        fn auth_params(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
            Ok("ahead".into())
        }

        fn evidence(
            &self,
            params: &str,
            binding: &Binding,
        ) -> Result<Value, Box<dyn Error + Send + Sync>> {
            Ok(serde_json::json!([params, binding.0[0]]))
        }
    }

    /// A folder in which so many GPUs are a recorded H100.
    fn recorded(count: usize) -> tempfile::TempDir {
        let vector = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/vectors/evidence/gpu/h100-545.00-e2e");
        let folder = tempfile::tempdir().unwrap();
        for gpu in 0..count {
            let to = folder.path().join(format!("gpu/{gpu}"));
            std::fs::create_dir_all(&to).unwrap();
            for file in ["report.bin", "chain.pem"] {
                std::fs::copy(vector.join(file), to.join(file)).unwrap();
            }
        }
        folder
    }

    #[test]
    fn gpus_travel_beside_the_cpu_as_stock_attesters_write_them() {
        let folder = recorded(2);
        let mut gpus = Recorded::open(folder.path()).unwrap().replaying();
        let composite = Composite::new(&Cpu, &mut gpus).unwrap();
        assert_eq!(
            (composite.tee(), composite.auth_params().unwrap().as_str()),
            (Tee::Snp, "ahead")
        );
        assert_eq!(
            composite.evidence("p", &Binding([7; 48])).unwrap(),
            serde_json::json!(["p", 7])
        );
        let text = composite.additional(&Binding([1; 48])).unwrap();
        let map: Value = serde_json::from_str(&text).unwrap();
        let list = map["nvidia"]["device_evidence_list"].as_array().unwrap();
        assert_eq!((list.len(), list[1]["arch"].as_str()), (2, Some("HOPPER")));
        assert!(list.iter().all(|gpu| {
            ["uuid", "evidence", "certificate"].iter().all(|name| gpu[name].is_string())
        }));
    }

    #[test]
    fn attack_a_recorded_gpu_does_not_answer_a_session() {
        let folder = recorded(1);
        let mut gpus = Recorded::open(folder.path()).unwrap();
        let failure = Composite::new(&Cpu, &mut gpus).err().unwrap();
        assert_eq!(failure.code, Code::Gpu);
    }

    #[test]
    fn gpus_that_do_not_attest_are_found_out_before_anybody_is_asked() {
        struct Off;
        impl Device for Off {
            fn kind(&self) -> Kind {
                Kind::Gpu
            }
            fn evidence(&mut self, _: &[u8; 64]) -> Result<Raw, CollectError> {
                Err(CollectError::Refused {
                    device: "GPU 0".into(),
                    action: "attest",
                    problem: "it is not in confidential-computing mode".into(),
                })
            }
        }
        struct None;
        impl Device for None {
            fn kind(&self) -> Kind {
                Kind::Gpu
            }
            fn evidence(&mut self, _: &[u8; 64]) -> Result<Raw, CollectError> {
                Ok(Raw::Gpus(vec![]))
            }
        }
        let failure = Composite::new(&Cpu, &mut Off).err().unwrap();
        assert_eq!(failure.code, Code::Gpu);
        assert!(failure.detail.contains("confidential-computing"), "{failure}");
        assert_eq!(Composite::new(&Cpu, &mut None).err().unwrap().code, Code::Gpu);
    }
}
