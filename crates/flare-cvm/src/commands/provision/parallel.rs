//! Several sites at a time. A site that fails does not stop the others.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Error, Result};
use cvm_image::provision::{Bundle, Form, provision};
use serde_json::json;

use super::{super::progress::Progress, sites::Site};
use crate::{problem::Problem, report};

/// Seals every site, at most `jobs` at a time.
pub(super) fn seal(sites: &[Site], jobs: usize, progress: &Progress) -> Result<()> {
    let next = AtomicUsize::new(0);
    let outcomes: Vec<Outcome> = sites.iter().map(|_| Mutex::new(None)).collect();
    let several = sites.len() > 1;
    thread::scope(|scope| {
        for _ in 0..jobs.min(sites.len()) {
            scope.spawn(|| {
                while let Some((site, outcome)) = at(&next, sites, &outcomes) {
                    let progress =
                        if several { progress.of(site.name()) } else { progress.clone() };
                    let result = provision(&site.request(), &mut |line| progress.step(line))
                        .map_err(Error::from);
                    match &result {
                        Ok(bundle) => announce(site, bundle, several, &progress),
                        // The reason comes once, at the end.
                        Err(_) if several => progress.step("failed"),
                        Err(_) => {}
                    }
                    *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            });
        }
    });
    let outcomes = outcomes
        .into_iter()
        .map(|outcome| outcome.into_inner().unwrap_or_else(PoisonError::into_inner));
    let mut outcomes =
        outcomes.map(|outcome| outcome.unwrap_or_else(|| Err(Error::msg("was not begun"))));
    if several {
        all(sites, outcomes, progress)
    } else {
        outcomes.try_for_each(|outcome| outcome.map(drop))
    }
}

type Outcome = Mutex<Option<Result<Bundle>>>;

/// The next site that nobody has taken.
fn at<'a>(
    next: &AtomicUsize,
    sites: &'a [Site],
    outcomes: &'a [Outcome],
) -> Option<(&'a Site, &'a Outcome)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((sites.get(index)?, outcomes.get(index)?))
}

fn announce(site: &Site, bundle: &Bundle, several: bool, progress: &Progress) {
    let path = bundle.path.display();
    let sizes = format!(
        "image {}, disk {} MB, UKI {:.1} MB, initramfs {:.1} MB",
        bundle.image_id,
        bundle.sizes.disk / 1_000_000,
        bundle.sizes.uki as f64 / 1e6,
        bundle.sizes.initramfs as f64 / 1e6,
    );
    match site.form() {
        Form::Folder => progress.step(&format!("{path} is ready: {sizes}")),
        Form::Archive => {
            progress.step(&sizes);
            // NVFLARE's packager looks for these words.
            progress.line(&format!("CVM Bundle {path} is ready"));
        }
    }
    if !several {
        progress.object(&object(site, bundle));
    }
}

fn object(site: &Site, bundle: &Bundle) -> serde_json::Value {
    json!({
        "site": site.name(), "bundle": bundle.path, "image_id": bundle.image_id.to_string(),
        "manifest_sha256": bundle.manifest_sha256.to_string(), "disk_bytes": bundle.sizes.disk,
        "uki_bytes": bundle.sizes.uki, "initramfs_bytes": bundle.sizes.initramfs,
    })
}

/// Says what became of each: the failures with their codes, then how many there were.
fn all(
    sites: &[Site],
    outcomes: impl Iterator<Item = Result<Bundle>>,
    progress: &Progress,
) -> Result<()> {
    let (mut bundles, mut failed) = (Vec::new(), Vec::new());
    for (site, outcome) in sites.iter().zip(outcomes) {
        match outcome {
            Ok(bundle) => bundles.push(object(site, &bundle)),
            Err(error) => {
                report::print(&error.context(format!("{} is not sealed", site.name())));
                failed.push(site.name().to_owned());
            }
        }
    }
    progress.object(&json!({ "bundles": bundles, "failed": failed }));
    if failed.is_empty() {
        return Ok(());
    }
    Problem::result(
        "CLI-012",
        format!("{} of {} sites are not sealed: {}", failed.len(), sites.len(), failed.join(", ")),
        "their reasons are above; the other bundles are whole and need not be made again",
    )
}
