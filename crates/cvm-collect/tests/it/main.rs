//! Devices of a guest, each played by something of this machine: a folder and a thread for
//! configfs, swtpm for Azure's vTPM, a library made here for NVML, a socket pair for the quote
//! generation service.

mod azure;
mod gpu;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use cvm_base::Explain as _;
use cvm_collect::{
    CertificateKind, CollectError, Device as _, Kind, QgsAddress, Raw, Recorded, SevGuest,
    SnpCertificate, TdxGuest, Tsm, quote_over,
};

fn vector(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence").join(name))
        .unwrap()
}

const ASKED: [u8; 64] = [0x5a; 64];

/// A report or quote as the firmware would bind it.
fn bound(kind: &str, data: &[u8]) -> Vec<u8> {
    let (mut bytes, at) = match kind {
        "sev_guest" => (vector("snp/milan-virtee/report.bin"), 0x50),
        _ => (vector("tdx/quotes/near-mpc.bin"), 568),
    };
    bytes[at..at + 64].copy_from_slice(data);
    bytes
}

/// A host's table with a VCEK in it.
fn table() -> Vec<u8> {
    let vcek = vector("snp/milan-virtee/vcek.der");
    let guid = [
        0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac,
        0xcd,
    ];
    let mut table =
        [&guid[..], &48_u32.to_le_bytes(), &(vcek.len() as u32).to_le_bytes(), &[0; 24]].concat();
    table.extend(vcek);
    table
}

/// What the fake kernel does besides its work.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    None,
    /// Another writer comes in between, this many times.
    Race(u32),
    /// The report is another one's, and the counter does not show it.
    Stale,
    /// Writes are not counted.
    Deaf,
}

/// Plays the kernel in a folder: makes attributes where a folder appears, reports where something
/// is written.
struct FakeKernel {
    reports: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl FakeKernel {
    fn start(provider: &'static str, trouble: Trouble) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let reports = folder.path().join("report");
        fs::create_dir(&reports).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, flag) = (reports.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut races = if let Trouble::Race(races) = trouble { races } else { 0 };
            while !flag.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&path).unwrap().flatten() {
                    work(&entry.path(), provider, trouble, &mut races);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { reports, stop, thread: Some(thread), _folder: folder }
    }
}

impl Drop for FakeKernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(folder: &Path, provider: &str, trouble: Trouble, races: &mut u32) {
    // Appear whole, as configfs' attributes do.
    let put = |name: &str, bytes: &[u8]| {
        let (temporary, path) = (folder.join(format!(".{name}")), folder.join(name));
        fs::write(&temporary, bytes).unwrap();
        fs::rename(temporary, path).unwrap();
    };
    if !folder.join("provider").exists() {
        put("inblob", b"");
        put("outblob", b"");
        put("auxblob", b"");
        put("generation", b"0\n");
        put("provider", format!("{provider}\n").as_bytes());
        return;
    }
    let asked = fs::read(folder.join("inblob")).unwrap();
    if asked.len() != 64 || trouble == Trouble::Deaf {
        return;
    }
    fs::write(folder.join("inblob"), b"").unwrap();
    let data = if trouble == Trouble::Stale { [7; 64].to_vec() } else { asked };
    put("outblob", &bound(provider, &data));
    if provider == "sev_guest" {
        put("auxblob", &table());
    }
    let mut generation: u64 =
        fs::read_to_string(folder.join("generation")).unwrap().trim().parse().unwrap();
    generation += 1;
    if *races > 0 {
        *races -= 1;
        generation += 1;
        put("outblob", &bound(provider, &[7; 64]));
    }
    put("generation", format!("{generation}\n").as_bytes());
}

#[test]
fn snp_through_configfs_with_the_hosts_certificates() {
    let kernel = FakeKernel::start("sev_guest", Trouble::None);
    let mut device = Tsm::open(&kernel.reports).unwrap();
    assert_eq!(device.kind(), Kind::Snp);
    for data in [ASKED, [1; 64], [0; 64]] {
        let Raw::Snp { report, certificates } = device.evidence(&data).unwrap() else { panic!() };
        assert_eq!(report, bound("sev_guest", &data));
        let vcek = SnpCertificate {
            kind: CertificateKind::Vcek,
            bytes: vector("snp/milan-virtee/vcek.der"),
        };
        assert_eq!(certificates, [vcek]);
    }
}

#[test]
fn tdx_through_configfs() {
    let kernel = FakeKernel::start("tdx_guest", Trouble::None);
    let mut device = Tsm::open(&kernel.reports).unwrap();
    assert_eq!(device.kind(), Kind::Tdx);
    assert_eq!(device.evidence(&ASKED).unwrap(), Raw::Tdx { quote: bound("tdx_guest", &ASKED) });
}

#[test]
fn a_report_that_somebody_elses_write_caused_is_asked_for_again() {
    let kernel = FakeKernel::start("sev_guest", Trouble::Race(2));
    let mut device = Tsm::open(&kernel.reports).unwrap();
    let Raw::Snp { report, .. } = device.evidence(&ASKED).unwrap() else { panic!() };
    assert_eq!(report, bound("sev_guest", &ASKED));

    let kernel = FakeKernel::start("sev_guest", Trouble::Race(100));
    let error = Tsm::open(&kernel.reports).unwrap().evidence(&ASKED).unwrap_err();
    assert_eq!(error.code(), "ATT-368", "not for ever: {error}");
}

#[test]
fn attack_a_report_for_another_challenge() {
    for provider in ["sev_guest", "tdx_guest"] {
        let kernel = FakeKernel::start(provider, Trouble::Stale);
        let error = Tsm::open(&kernel.reports).unwrap().evidence(&ASKED).unwrap_err();
        assert_eq!(error.code(), "ATT-367", "{error}");
    }
}

#[test]
fn configfs_that_is_not_there_or_does_not_work() {
    let code = |result: Result<Tsm, CollectError>| result.err().unwrap().code();
    assert_eq!(code(Tsm::open(Path::new("/nonexistent/tsm/report"))), "ATT-365");
    let kernel = FakeKernel::start("arm_cca_guest", Trouble::None);
    assert_eq!(code(Tsm::open(&kernel.reports)), "ATT-367");
    let kernel = FakeKernel::start("sev_guest", Trouble::Deaf);
    let error = Tsm::open(&kernel.reports).unwrap().evidence(&ASKED).unwrap_err();
    assert_eq!(error.code(), "ATT-368");
}

#[test]
fn older_devices_that_are_absent_or_something_else() {
    let missing = Path::new("/nonexistent/sev-guest");
    assert_eq!(SevGuest::open(missing).unwrap_err().code(), "ATT-365");
    assert_eq!(TdxGuest::open(missing, QgsAddress::default()).unwrap_err().code(), "ATT-365");
    let null = Path::new("/dev/null");
    let error = SevGuest::open(null).unwrap().evidence(&ASKED).unwrap_err();
    assert_eq!(error.code(), "ATT-366", "{error}");
    let error = TdxGuest::open(null, QgsAddress::default()).unwrap().evidence(&ASKED).unwrap_err();
    assert_eq!(error.code(), "ATT-366", "{error}");
}

/// A service that answers one request with these bytes, and returns what it was sent.
fn service(answer: Vec<u8>) -> (UnixStream, thread::JoinHandle<Vec<u8>>) {
    let (guest, mut host) = UnixStream::pair().unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let thread = thread::spawn(move || {
        let mut request = vec![0; 4 + 24 + 1024];
        host.read_exact(&mut request).unwrap();
        host.write_all(&answer).unwrap();
        request
    });
    (guest, thread)
}

/// A response: framed, type, error code, id and quote.
fn response(kind: u32, error: u32, id: &[u8], quote: &[u8]) -> Vec<u8> {
    let size = (24 + id.len() + quote.len()) as u32;
    let mut message = size.to_be_bytes().to_vec();
    message.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
    for field in [kind, size, error, id.len() as u32, quote.len() as u32] {
        message.extend(field.to_le_bytes());
    }
    [&message, id, quote].concat()
}

#[test]
fn the_hosts_service_makes_a_quote_of_a_report() {
    let quote = bound("tdx_guest", &ASKED);
    let (mut stream, host) = service(response(1, 0, &[9; 16], &quote));
    assert_eq!(quote_over(&mut stream, &[3; 1024]).unwrap(), quote);
    let request = host.join().unwrap();
    assert_eq!(request[..4], 1048_u32.to_be_bytes());
    assert_eq!(request[4..8], [1, 0, 1, 0]);
    assert_eq!(request[20..28], [0, 4, 0, 0, 0, 0, 0, 0], "a report of 1024 bytes, no ids");
    assert_eq!(request[28..], [3; 1024]);
}

#[test]
fn attack_answers_of_the_hosts_service() {
    let quote = bound("tdx_guest", &ASKED);
    let good = response(1, 0, &[], &quote);
    let mut endless = good.clone();
    endless[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut outside = good.clone();
    outside[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    for (answer, code) in [
        (response(1, 0x12001, &[], &[]), "ATT-366"),
        (response(3, 0, &[], &quote), "ATT-367"),
        (response(1, 0, &[], &[]), "ATT-367"),
        (endless, "ATT-367"),
        (outside, "ATT-367"),
        (good[..100].to_vec(), "ATT-366"),
        (vec![], "ATT-366"),
    ] {
        let (mut stream, host) = service(answer);
        assert_eq!(quote_over(&mut stream, &[3; 1024]).unwrap_err().code(), code);
        drop(stream);
        host.join().unwrap();
    }
}

#[test]
fn recordings_answer_only_the_challenge_they_were_made_for() {
    let report = vector("snp/milan-virtee/report.bin");
    let data: [u8; 64] = report[0x50..0x90].try_into().unwrap();
    let vcek =
        SnpCertificate { kind: CertificateKind::Vcek, bytes: vector("snp/milan-virtee/vcek.der") };
    let raw = Raw::Snp { report, certificates: vec![vcek] };
    let folder = tempfile::tempdir().unwrap();
    Recorded::write(folder.path(), &raw).unwrap();
    let mut device = Recorded::open(folder.path()).unwrap();
    assert_eq!(device.evidence(&data).unwrap(), raw);
    let error = device.evidence(&ASKED).unwrap_err();
    assert_eq!(error.code(), "ATT-369", "{error}");
    assert_eq!(device.replaying().evidence(&ASKED).unwrap(), raw);

    let folder = tempfile::tempdir().unwrap();
    let quote = vector("tdx/quotes/near-mpc.bin");
    let data: [u8; 64] = quote[568..632].try_into().unwrap();
    let raw = Raw::Tdx { quote };
    Recorded::write(folder.path(), &raw).unwrap();
    let mut device = Recorded::open(folder.path()).unwrap();
    assert_eq!((device.kind(), device.evidence(&data).unwrap()), (Kind::Tdx, raw));
    assert_eq!(device.evidence(&ASKED).unwrap_err().code(), "ATT-369");

    let folder = tempfile::tempdir().unwrap();
    let report = vector("gpu/h100-545.00-e2e/report.bin");
    let mut data = [0; 64];
    data[..32].copy_from_slice(&report[4..36]);
    // A recording keeps no device's name.
    let gpu = |index| cvm_collect::Gpu {
        uuid: format!("recorded-{index}"),
        report: report.clone(),
        certificates: vector("gpu/h100-545.00-e2e/chain.pem"),
    };
    let raw = Raw::Gpus(vec![gpu(0), gpu(1)]);
    Recorded::write(folder.path(), &raw).unwrap();
    let mut device = Recorded::open(folder.path()).unwrap();
    assert_eq!(device.evidence(&data).unwrap(), raw);
    assert_eq!(device.evidence(&ASKED).unwrap_err().code(), "ATT-369");

    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Recorded::open(empty.path()).unwrap_err().code(), "ATT-365");
    fs::write(empty.path().join("quote.bin"), [4; 100]).unwrap();
    assert_eq!(
        Recorded::open(empty.path()).unwrap().evidence(&ASKED).unwrap_err().code(),
        "ATT-367"
    );
}
