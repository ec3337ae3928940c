//! How an error reaches the user: what failed, the causes below it, and the next step.

use anyhow::Error;
use cvm_base::Explain;

/// Finds the first error in the chain that explains itself, whichever crate it is from.
macro_rules! explained {
    ($error:expr; $($type:ty),+ $(,)?) => {
        $error.chain().find_map(|cause| {
            $(if let Some(e) = cause.downcast_ref::<$type>() {
                return Some((e.code(), e.help()));
            })+
            None
        })
    };
}

/// Prints `error[CODE]: …`, the causes, and `help: …` to standard error.
pub fn print(error: &Error) {
    let explained = explained!(
        error;
        crate::problem::Problem,
        cvm_peer::audit::AuditError,
        cvm_evidence::AttestError,
        cvm_verify::gpu::GpuError,
        cvm_policy::PolicyError,
        cvm_verify::token::TokenError,
        cvm_predict::PredictError,
        cvm_predict::snp::LaunchError,
        cvm_collateral::CacheError,
        cvm_collect::CollectError,
        cvm_collateral::CollateralError,
        cvm_fetch::FetchError,
        cvm_base::FileError,
        cvm_ceremony::CeremonyError,
        cvm_ceremony::split_key::SplitKeyError,
        cvm_custody::CustodyError,
        cvm_image::boot::BootError,
        cvm_image::cc::CcConfigError,
        cvm_image::cc::manager::ManagerError,
        cvm_image::memory::MemoryError,
        cvm_image::provision::ProvisionError,
        cvm_image::stage::StageError,
        cvm_image::stage::kit::KitError,
        cvm_image::user_data::UserDataError,
        cvm_keyholder::KeyHolderError,
        cvm_layout::layout::LayoutError,
        cvm_layout::site_conf::ConfError,
        cvm_seal::SealError,
    );
    let (code, help) =
        explained.unwrap_or(("CLI-000", "see the causes above, and --help of the command".into()));
    eprintln!("error[{code}]: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // An error that quotes its source would say it twice.
        if !last.contains(&text) {
            eprintln!("  caused by: {text}");
        }
        last = text;
    }
    eprintln!("help: {help}");
}
