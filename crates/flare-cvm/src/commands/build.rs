//! `flare-cvm build`: one of the three stage images.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use cvm_base::Bytes32;
use cvm_image::stage::{self, BuildRequest, StageSpec};

use super::progress::Progress;
use crate::problem::Problem;

/// Build one of the three stage images.
///
/// nvidia_cc_base (a hardened Debian) → nvflare_cc_base (NVFLARE's Python environment) →
/// provision_build (the project's locked-down image). Each stage names its base by digest and ends
/// with its gate: checks on the tree, of which one failure stops the build. A stage whose inputs
/// did not change is taken from the cache.
///
///   flare-cvm build nvidia_cc_base -o nvcc_image.qcow2
///   flare-cvm build nvflare_cc_base --base-image nvcc_image.qcow2 -o nvflare_cc_base.qcow2
///   flare-cvm build provision_build --base-image nvflare_cc_base.qcow2 -o provisioned.qcow2
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Build {
    /// A stage's name, or the folder of its stage.yaml
    stage: PathBuf,
    /// The image of the previous stage
    #[arg(long, value_name = "FILE")]
    base_image: Option<PathBuf>,
    /// The digest that the base must have: content_sha256, as its own build printed it
    #[arg(long, value_name = "SHA256")]
    base_digest: Option<Bytes32>,
    /// The distribution, for the first stage; the later ones inherit it. debian-12-nvidia adds
    /// NVIDIA's driver to debian-12, for cc_gpu_mechanism: nvidia_cc; debian-12-tdx has a later
    /// kernel, for cc_cpu_mechanism: intel_tdx
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The folder of the programs that run in the guest, such as cvm-agent [default: the folder of
    /// this program]
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// The stage image to write [default: the stage's folder and the name its stage.yaml gives]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where stages are looked for by name
    #[arg(long, value_name = "FOLDER", default_value = "stages")]
    stages: PathBuf,
    /// Build even if the inputs did not change: this takes the mirror's newest packages
    #[arg(long)]
    rebuild: bool,
    /// Print one JSON object at the end instead of progress
    #[arg(long)]
    json: bool,
}

pub fn run(args: Build) -> Result<()> {
    let by_name = args.stages.join(&args.stage);
    let Some(folder) =
        [args.stage.clone(), by_name].into_iter().find(|f| f.join("stage.yaml").is_file())
    else {
        let by_name = args.stages.join(&args.stage);
        return Problem::result(
            "CLI-001",
            format!("there is no stage.yaml in {} or {}", args.stage.display(), by_name.display()),
            "name one of nvidia_cc_base, nvflare_cc_base, provision_build, and run from the \
             repository's root or say --stages",
        );
    };
    let output = match args.output {
        Some(output) => output,
        None => folder.join(StageSpec::read(&folder)?.image),
    };
    let programs = match args.programs {
        Some(folder) => folder,
        None => std::env::current_exe()?.parent().unwrap_or(std::path::Path::new("/")).to_owned(),
    };
    let progress = Progress::new(args.json);
    let request = BuildRequest {
        stage_dir: folder,
        base_image: args.base_image,
        base_digest: args.base_digest,
        profile: args.profile,
        programs,
        output,
        rebuild: args.rebuild,
    };
    let built = stage::build(&request, &mut |line| progress.step(line))?;
    let bytes = std::fs::metadata(&built.image)?.len();
    progress.done(
        &format!(
            "{} {} ({} MB, content {}) in {:.1} s",
            built.image.display(),
            if built.cached { "is up to date" } else { "built" },
            bytes / 1_000_000,
            built.meta.content_sha256,
            built.seconds
        ),
        &serde_json::json!({
            "image": built.image, "stage": built.meta.stage, "cached": built.cached, "bytes": bytes,
            "content_sha256": built.meta.content_sha256.to_string(),
            "inputs_sha256": built.meta.inputs_sha256.to_string(),
            "seconds": built.seconds,
        }),
    );
    Ok(())
}
