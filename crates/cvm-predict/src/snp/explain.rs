//! Which input a launch digest differs in.

use std::fmt;

use cvm_base::Bytes;

use super::{
    digest::LaunchDigest,
    error::LaunchError,
    firmware::Firmware,
    inputs::{Kernel, LaunchInputs, Vmm},
    launch::{measure, metadata},
    vcpu_type::VcpuType,
    vmsa,
};

/// vCPU counts that are tried.
const VCPUS: u32 = 64;

/// What a launch digest says about the launch, compared with a prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaunchDifference {
    /// The predicted digest.
    None,
    /// Exactly one input had another value.
    Input {
        /// Its name in the prediction.
        name: &'static str,
        /// What was predicted.
        expected: String,
        /// What was launched.
        found: String,
    },
    /// Nothing that was tried alone gives this digest.
    Unknown,
}

impl fmt::Display for LaunchDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (expected, found) = match self {
            Self::None => return f.write_str("the launch digest is the predicted one"),
            Self::Unknown => {
                return write!(
                    f,
                    "firmware, kernel, initrd or command line changed, or two inputs at once: no \
                     other vCPU count up to {VCPUS}, vCPU type, guest feature or VMM alone gives \
                     this launch digest"
                );
            }
            Self::Input { expected, found, .. } => (expected, found),
        };
        match self {
            Self::Input { name: "vcpus", .. } => {
                write!(f, "the host gave {found} vCPUs, predicted are {expected}")
            }
            Self::Input { name: "vcpu_type", .. } => {
                write!(f, "the host gave another vCPU type: {found}, predicted is {expected}")
            }
            Self::Input { name: "guest_features", .. } => {
                write!(
                    f,
                    "the host's kernel set other guest features: {found}, predicted are {expected}"
                )
            }
            Self::Input { name, .. } => {
                write!(f, "the guest was launched with another {name}: {found}, not {expected}")
            }
            Self::None | Self::Unknown => Ok(()),
        }
    }
}

/// Names the one input that gives `observed` when all others are as predicted; see [`variants`].
///
/// # Errors
/// [`LaunchError`] as of [`super::launch`].
pub fn explain(
    inputs: &LaunchInputs<'_>,
    observed: &Bytes<48>,
) -> Result<LaunchDifference, LaunchError> {
    if measure(inputs)? == observed.0 {
        return Ok(LaunchDifference::None);
    }
    let found = variants(inputs)?.into_iter().find(|(_, measurement)| measurement == observed);
    Ok(found.map_or(LaunchDifference::Unknown, |(difference, _)| difference))
}

/// The digests of launches that differ in one input, each with that input.
///
/// Tried are: 1 to 64 vCPUs, QEMU's models, each bit of the guest features, the other VMMs, a
/// launch without the kernel, without its initrd, without its command line. Contents of files
/// cannot be told from a digest.
///
/// # Errors
/// [`LaunchError`] as of [`super::launch`].
pub fn variants(
    inputs: &LaunchInputs<'_>,
) -> Result<Vec<(LaunchDifference, Bytes<48>)>, LaunchError> {
    let predicted = measure(inputs)?;
    let firmware = Firmware::parse(inputs.firmware)?;
    let memory = firmware.memory(LaunchDigest::default());
    let pages = metadata(&firmware, memory, inputs.kernel.as_ref(), inputs.vmm)?;
    let mut all = Vec::new();
    let mut add =
        |name, expected: &dyn fmt::Display, found: &dyn fmt::Display, digest: LaunchDigest| {
            let (expected, found) = (expected.to_string(), found.to_string());
            all.push((LaunchDifference::Input { name, expected, found }, Bytes(digest.finish())));
        };
    let with = |changed: &LaunchInputs<'_>| vmsa::add(pages, &firmware, changed, changed.vcpus);

    for (vcpus, digest) in (1..=VCPUS).zip(vmsa::each(pages, &firmware, inputs)) {
        add("vcpus", &inputs.vcpus, &vcpus, digest);
    }
    for vcpu_type in VcpuType::models() {
        add(
            "vcpu_type",
            &inputs.vcpu_type,
            &vcpu_type,
            with(&LaunchInputs { vcpu_type, ..*inputs }),
        );
    }
    for guest_features in (0..64).map(|bit| inputs.guest_features ^ 1 << bit) {
        let [expected, found] =
            [inputs.guest_features, guest_features].map(|features| format!("{features:#x}"));
        add("guest_features", &expected, &found, with(&LaunchInputs { guest_features, ..*inputs }));
    }
    // These change pages that are added before the vCPUs'.
    let again = |changed: &LaunchInputs<'_>| {
        let pages = metadata(&firmware, memory, changed.kernel.as_ref(), changed.vmm)?;
        Ok::<_, LaunchError>(vmsa::add(pages, &firmware, changed, changed.vcpus))
    };
    for vmm in Vmm::ALL {
        add("vmm", &inputs.vmm.name(), &vmm.name(), again(&LaunchInputs { vmm, ..*inputs })?);
    }
    if let Some(kernel) = inputs.kernel {
        for (name, changed) in [
            ("kernel", None),
            ("initrd", Some(Kernel { initrd: &[], ..kernel })),
            ("command_line", Some(Kernel { command_line: "", ..kernel })),
        ] {
            add(
                name,
                &"the predicted one",
                &"none",
                again(&LaunchInputs { kernel: changed, ..*inputs })?,
            );
        }
    }
    all.retain(|(_, measurement)| measurement.0 != predicted);
    Ok(all)
}
