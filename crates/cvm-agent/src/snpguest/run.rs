//! What each subcommand does.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::{FileError, read_bounded, write_atomic};
use cvm_verify::{
    snp::{KDS_CERTIFICATES, REPORT_BYTES},
    x509::Certificate,
};
use serde_json::{Value, json};

use super::{
    display::Text,
    error::SnpguestError,
    file::{MAX_BYTES, ReportFile},
};
use cvm_peer::audit::ask_local;

/// NVFLARE gives up after 60 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// A certificate, PEM or DER; a VCEK has some 2 KiB of PEM.
const MAX_CERTIFICATE: u64 = 16 * 1024;
/// Where an endorsement key's certificate may lie, in the order in which virtee's program looks.
const ENDORSEMENTS: [&str; 4] = ["vlek.pem", "vlek.der", "vcek.pem", "vcek.der"];

/// How certificates are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text.
    Pem,
    /// Bytes.
    Der,
}

/// A subcommand with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes a report over the request file's 64 bytes.
    Report {
        /// The report's file.
        report: PathBuf,
        /// 64 bytes.
        request: PathBuf,
    },
    /// Writes AMD's root and intermediate.
    FetchCa {
        /// How.
        encoding: Encoding,
        /// Where.
        folder: PathBuf,
        /// Whose: `milan`, `genoa`, `bergamo`, `siena`, `turin`.
        model: String,
    },
    /// Writes what vouches for a report.
    FetchVcek {
        /// How.
        encoding: Encoding,
        /// Where.
        folder: PathBuf,
        /// The report's file.
        report: PathBuf,
    },
    /// Shows a report.
    Display {
        /// The report's file.
        report: PathBuf,
    },
    /// Verifies a report.
    Verify {
        /// Certificates.
        folder: PathBuf,
        /// The report's file.
        report: PathBuf,
    },
}

/// Runs a subcommand, with the agent at `socket`; the text is for standard output.
///
/// # Errors
/// [`SnpguestError`].
pub fn run(command: &Command, socket: &Path) -> Result<String, SnpguestError> {
    match command {
        Command::Report { report, request } => {
            make(report, request, socket).map(|()| String::new())
        }
        Command::FetchCa { encoding, folder, model } => {
            let [ask, ark] = authorities(model)?;
            write(folder, "ask", *encoding, ask.der())?;
            write(folder, "ark", *encoding, ark.der()).map(|()| String::new())
        }
        Command::FetchVcek { encoding, folder, report } => {
            let file = read(report)?;
            let verdict = ask_for_verdict(&file, file.certificates.clone(), socket)?;
            let endorsement = base64(&verdict, "endorsement")?;
            // NVFLARE looks for this name, whichever kind of key signed.
            write(folder, "vcek", *encoding, &endorsement).map(|()| String::new())
        }
        Command::Display { report } => Ok(format!("{}\n", Text(&read(report)?.report))),
        Command::Verify { folder, report } => {
            let file = read(report)?;
            // What came with the report is this chip's; what lies in the folder may be another's,
            // if chips are masked.
            let certificates = match file.certificates.is_empty() {
                true => in_folder(folder)?,
                false => file.certificates.clone(),
            };
            ask_for_verdict(&file, certificates, socket)?;
            Ok("Reported TCB, chip and certificate chain verified by the attestation agent.\n\
                VEK signed the Attestation Report!\n"
                .into())
        }
    }
}

fn make(report: &Path, request: &Path, socket: &Path) -> Result<(), SnpguestError> {
    let data = read_bounded(request, 4096)?;
    // As virtee's: what follows the first 64 bytes is not read.
    let Some(data) = data.first_chunk::<64>() else {
        return Err(SnpguestError::RequestFile { found: data.len() });
    };
    let request = json!({ "v": 1, "op": "snp-report", "report_data": cvm_base::Bytes(*data) });
    let answer = ask_local(socket, &request, PATIENCE)?;
    let bytes = [base64(&answer, "report")?, base64(&answer, "certificates")?].concat();
    let made = ReportFile::parse(&bytes)?;
    if made.report.get(0x50..0x90) != Some(data.as_slice()) {
        return Err(SnpguestError::Report { problem: "it answers another request".into() });
    }
    Ok(write_atomic(report, &bytes, 0o644)?)
}

fn read(report: &Path) -> Result<ReportFile, SnpguestError> {
    ReportFile::parse(&read_bounded(report, MAX_BYTES as u64)?)
}

fn ask_for_verdict(
    file: &ReportFile,
    certificates: Vec<Vec<u8>>,
    socket: &Path,
) -> Result<Value, SnpguestError> {
    let certificates: Vec<_> =
        certificates.iter().map(|certificate| STANDARD.encode(certificate)).collect();
    let report = STANDARD.encode::<&[u8; REPORT_BYTES]>(&file.report);
    let request =
        json!({ "v": 1, "op": "snp-verify", "report": report, "certificates": certificates });
    let answer = ask_local(socket, &request, PATIENCE)?;
    match answer.get("verified").and_then(Value::as_bool) {
        Some(true) => Ok(answer),
        _ => Err(SnpguestError::Answer { member: "verified" }),
    }
}

/// The first endorsement in the folder. It is not an error if there is none: the agent may have
/// one.
fn in_folder(folder: &Path) -> Result<Vec<Vec<u8>>, SnpguestError> {
    match ENDORSEMENTS.map(|name| folder.join(name)).into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(vec![read_bounded(&path, MAX_CERTIFICATE)?]),
        None => Ok(Vec::new()),
    }
}

/// ASK and ARK of a processor.
fn authorities(model: &str) -> Result<[Certificate; 2], SnpguestError> {
    // Bergamo and Siena share Genoa's.
    let line = match model.to_ascii_lowercase().as_str() {
        "milan" => "Milan",
        "genoa" | "bergamo" | "siena" => "Genoa",
        "turin" => "Turin",
        other => {
            return Err(SnpguestError::Report {
                problem: format!("no processor is called {other:?}"),
            });
        }
    };
    let unreadable = || SnpguestError::Answer { member: "AMD's certificates" };
    let known = Certificate::read_all(&KDS_CERTIFICATES.concat()).map_err(|_| unreadable())?;
    let named = |name: String| {
        let found =
            known.iter().find(|c| c.subject().split(',').any(|part| part == format!("CN={name}")));
        found.cloned().ok_or_else(unreadable)
    };
    Ok([named(format!("SEV-{line}"))?, named(format!("ARK-{line}"))?])
}

fn write(folder: &Path, name: &str, encoding: Encoding, der: &[u8]) -> Result<(), SnpguestError> {
    let create = |source| FileError::Io { action: "create", path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(create)?;
    let (suffix, text) = match encoding {
        Encoding::Der => ("der", der.to_vec()),
        Encoding::Pem => ("pem", pem(der).into_bytes()),
    };
    Ok(write_atomic(&folder.join(format!("{name}.{suffix}")), &text, 0o644)?)
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text += line;
        text.push('\n');
        rest = after;
    }
    text + "-----END CERTIFICATE-----\n"
}

fn base64(answer: &Value, member: &'static str) -> Result<Vec<u8>, SnpguestError> {
    let text =
        answer.get(member).and_then(Value::as_str).ok_or(SnpguestError::Answer { member })?;
    STANDARD.decode(text).map_err(|_| SnpguestError::Answer { member })
}
