//! `flare-cvm data`: a site's own data into its bundle.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::progress::Progress;

/// Put a site's own data into its bundle's disk (p6).
///
/// The CVM mounts it read-only at /opt/nvflare/data. The data stays the site's: it is neither
/// encrypted nor authenticated, and needs no key or new image to change. It replaces what p6 held;
/// everything else on the disk stays. The CVM must be off, and everybody must be able to read every
/// file, because the CVM's own user reads them.
///
///   tar -xzf site-1.tgz && flare-cvm data cvm_4a1bc2d0 /srv/biopsies && cvm_4a1bc2d0/launch_vm.sh
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Data {
    /// The bundle's folder: it holds disk.qcow2
    bundle: PathBuf,
    /// The folder whose files become the data
    folder: PathBuf,
    /// Print one JSON object at the end instead of progress
    #[arg(long)]
    json: bool,
}

pub fn run(args: Data) -> Result<()> {
    let progress = Progress::new(args.json);
    progress.step("making a file system of the data, and a disk with it");
    let bytes = cvm_image::user_data::put(&args.bundle, &args.folder)?;
    progress.done(
        &format!(
            "p6 of {} holds {} ({bytes} bytes of files)",
            args.bundle.display(),
            args.folder.display()
        ),
        &serde_json::json!({ "bundle": args.bundle, "bytes": bytes }),
    );
    Ok(())
}
