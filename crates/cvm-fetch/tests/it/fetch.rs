//! The fetcher against doubles of AMD's, Intel's and NVIDIA's services on this machine. Time is the
//! test's.

use std::{cell::RefCell, convert::Infallible, rc::Rc, time::Duration};

use crate::{
    server::{Answer, Server, response},
    support::{amd_crl, vector},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::{Explain as _, sha256};
use cvm_collateral::{Item, Key, QuoteCollateral, content};
use cvm_fetch::{
    Bases, Clock, FetchError, Fetcher, Limits, Network, Outcome, Progress, Proxy, requests,
};

const RIM: &str = "NV_GPU_DRIVER_GH100_545.00";

/// Sleeping only moves it; every sleep is remembered.
#[derive(Clone, Default)]
struct FakeClock(Rc<RefCell<(Duration, Vec<u64>)>>);

impl FakeClock {
    fn sleeps(&self) -> Vec<u64> {
        self.0.borrow().1.clone()
    }
}

impl Clock for FakeClock {
    fn elapsed(&self) -> Duration {
        self.0.borrow().0
    }

    fn unix(&self) -> u64 {
        1_760_000_000 + self.elapsed().as_secs()
    }

    fn sleep(&self, time: Duration) {
        let mut state = self.0.borrow_mut();
        state.0 += time;
        state.1.push(time.as_millis() as u64);
    }

    fn fraction(&self) -> f64 {
        1.0
    }
}

struct Fetched {
    outcome: Outcome,
    items: Vec<Item>,
    lines: Vec<String>,
    sleeps: Vec<u64>,
}

fn bases(server: &Server) -> Bases {
    let base = || server.base.clone();
    Bases { amd_kds: base(), intel_pcs: base(), intel_root: base(), nvidia_rim: base() }
}

fn fetch_with(bases: Bases, limits: Limits, keys: &[Key]) -> Fetched {
    let clock = FakeClock::default();
    let fetcher = Fetcher::new(bases, &direct(), limits, clock.clone()).unwrap();
    let (mut items, mut lines) = (Vec::new(), Vec::new());
    let mut progress = |event: &Progress<'_>| lines.push(event.to_string());
    let mut keep = |item: Item| -> Result<(), Infallible> {
        items.push(item);
        Ok(())
    };
    let Ok(outcome) = fetcher.fetch(keys, &mut progress, &mut keep);
    Fetched { outcome, items, lines, sleeps: clock.sleeps() }
}

fn direct() -> Network {
    Network { proxy: Proxy::Direct, authorities: None }
}

fn fetch(server: &Server, keys: &[Key]) -> Fetched {
    fetch_with(bases(server), Limits::default(), keys)
}

fn key(kind: &str, name: &str) -> Key {
    Key::parse(kind, name).unwrap()
}

fn milan_vcek() -> Key {
    content::identify(&vector("snp/milan-virtee/vcek.der")).unwrap().0
}

fn near_mpc() -> (Key, QuoteCollateral) {
    let (key, stored) = content::identify(&vector("tdx/collateral/near-mpc.json")).unwrap();
    (key, QuoteCollateral::parse(&stored).unwrap())
}

fn percent(pem: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    pem.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Intel's four answers, made of the vector's parts.
fn intel(path: &str, collateral: &QuoteCollateral) -> Answer {
    let chain = |name: &str, pem: &str| {
        format!("{name}: {}\r\ncontent-type: application/json\r\n", percent(pem))
    };
    let json = |member: &str, text: &str, signature: &str| {
        format!("{{\"{member}\":{text},\"signature\":\"{signature}\"}}").into_bytes()
    };
    let c = collateral;
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "/tdx/certification/v4/tcb" => response(
            200,
            &chain("TCB-Info-Issuer-Chain", &c.tcb_info_issuer_chain),
            &json("tcbInfo", &c.tcb_info, &c.tcb_info_signature),
        ),
        "/tdx/certification/v4/qe/identity" => response(
            200,
            &chain("SGX-Enclave-Identity-Issuer-Chain", &c.qe_identity_issuer_chain),
            &json("enclaveIdentity", &c.qe_identity, &c.qe_identity_signature),
        ),
        "/sgx/certification/v4/pckcrl" => response(
            200,
            &chain("SGX-PCK-CRL-Issuer-Chain", &c.pck_crl_issuer_chain),
            &hex::decode(&c.pck_crl).unwrap(),
        ),
        "/IntelSGXRootCA.der" => response(200, "", &hex::decode(&c.root_ca_crl).unwrap()),
        _ => None,
    }
}

fn nvidia(id: &str, rim: &[u8]) -> Answer {
    let digest = sha256(rim);
    let body = format!(
        "{{\"id\":\"{id}\",\"rim\":\"{}\",\"sha256\":\"{digest}\",\"rim_format\":\"TCG\",\
         \"request_id\":\"1\"}}",
        STANDARD.encode(rim)
    );
    response(200, "content-type: application/json\r\n", body.as_bytes())
}

#[test]
fn requests_are_the_vendors_byte_for_byte() {
    let urls = |key: Key| -> Vec<String> {
        requests(&key, &Bases::default()).unwrap().into_iter().map(|request| request.url).collect()
    };
    let chip = "d49554ec717f4e5b0fe6b143bcf0405bd6929a1a9b9a";
    let Key::Vcek { hwid, .. } = milan_vcek() else { panic!() };
    assert!(hex::encode(&hwid).starts_with(&chip[..32]));
    assert_eq!(
        urls(milan_vcek()),
        [format!(
            "https://kdsintf.amd.com/vcek/v1/Milan/{}?blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115",
            hex::encode(&hwid)
        )]
    );
    assert_eq!(
        urls(key("vcek", "Turin/1e550a8ee5cf9f4d/fmc1-bl2-tee3-snp4-ucode9")),
        ["https://kdsintf.amd.com/vcek/v1/Turin/1e550a8ee5cf9f4d\
             ?fmcSPL=1&blSPL=2&teeSPL=3&snpSPL=4&ucodeSPL=9"]
    );
    assert_eq!(
        urls(key("amd-chain", "vlek/Genoa")),
        ["https://kdsintf.amd.com/vlek/v1/Genoa/cert_chain"]
    );
    assert_eq!(urls(key("amd-crl", "vcek/Turin")), ["https://kdsintf.amd.com/vcek/v1/Turin/crl"]);
    assert_eq!(
        urls(key("dcap", "tdx/50806f000000/processor")),
        [
            "https://api.trustedservices.intel.com/tdx/certification/v4/tcb?fmspc=50806f000000",
            "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity",
            "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl\
             ?ca=processor&encoding=der",
            "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
        ]
    );
    assert!(
        urls(key("dcap", "sgx/50806f000000/platform"))[1]
            .ends_with("/sgx/certification/v4/qe/identity")
    );
    assert_eq!(urls(key("rim", RIM)), [format!("https://rim.attestation.nvidia.com/v1/rim/{RIM}")]);
    let vlek = key("vlek", "Milan/CN=x/bl4-tee0-snp24-ucode217");
    assert_eq!(requests(&vlek, &Bases::default()).unwrap_err(), FetchError::NotOffered);
    // A mirror below a path.
    let bases = Bases { amd_kds: "https://mirror.example/kds/".into(), ..Bases::default() };
    assert_eq!(
        requests(&key("amd-crl", "vcek/Milan"), &bases).unwrap()[0].url,
        "https://mirror.example/kds/vcek/v1/Milan/crl"
    );
}

#[test]
fn everything_is_fetched_in_as_few_requests_as_possible_and_amd_is_given_time() {
    let crl = amd_crl("ARK-Milan");
    let (dcap, collateral) = near_mpc();
    let parts = collateral.clone();
    let server = Server::start(move |path, _| match path {
        "/vcek/v1/Milan/cert_chain" => response(
            200,
            "content-type: application/x-pem-file\r\n",
            &vector("snp/_amd-roots/ask_ark_milan.pem"),
        ),
        "/vcek/v1/Milan/crl" => response(200, "", &crl),
        path if path.starts_with("/vcek/v1/Milan/") => {
            response(200, "", &vector("snp/milan-virtee/vcek.der"))
        }
        "/v1/rim/NV_GPU_DRIVER_GH100_545.00" => {
            nvidia(RIM, &vector("gpu/h100-545.00-e2e/driver-rim.xml"))
        }
        path => intel(path, &parts),
    });
    // Each key twice: asked once.
    let mut keys = vec![
        milan_vcek(),
        key("amd-chain", "vcek/Milan"),
        key("amd-crl", "vcek/Milan"),
        dcap.clone(),
        key("rim", RIM),
    ];
    keys.extend(keys.clone());
    let fetched = fetch(&server, &keys);
    assert_eq!(fetched.outcome.failed, []);
    assert_eq!(fetched.items.len(), 5);
    assert_eq!(server.paths().len(), 8);
    let item = |key: &Key| fetched.items.iter().find(|item| item.key == *key).unwrap();
    assert_eq!(item(&milan_vcek()).bytes, vector("snp/milan-virtee/vcek.der"));
    assert_eq!(item(&key("rim", RIM)).bytes, vector("gpu/h100-545.00-e2e/driver-rim.xml"));
    let stored = QuoteCollateral::parse(&item(&dcap).bytes).unwrap();
    assert_eq!(stored, collateral, "what Intel signed is kept byte for byte");
    assert_eq!(item(&dcap).source.split(' ').count(), 4);
    // Three requests to AMD: two waits of ten seconds, in which the others are asked.
    let waited: u64 = fetched.sleeps.iter().sum();
    assert!((19_900..=20_100).contains(&waited), "{:?}", fetched.sleeps);
    assert!(fetched.lines.iter().any(|line| line.starts_with("waiting ")), "{:?}", fetched.lines);
    for head in server.heads() {
        assert!(head.to_lowercase().contains("user-agent: flare-cvm/"), "{head}");
        assert!(head.starts_with("GET /"), "{head}");
    }
    let accepts = |path: &str| {
        server.heads().iter().any(|h| h.contains(path) && h.contains("accept: application/json"))
    };
    assert!(accepts("/v1/rim/") && accepts("/tcb?fmspc=") && !accepts("/vcek/"));
}

#[test]
fn status_429_is_obeyed_then_it_works() {
    let crl = amd_crl("ARK-Milan");
    let server = Server::start(move |_, before| match before {
        0 => response(429, "retry-after: 37\r\n", b""),
        1 => response(429, "", b"slow down"),
        2 => response(503, "retry-after: Thu, 09 Oct 2025 09:00:00 GMT\r\n", b""),
        _ => response(200, "", &crl),
    });
    let fetched = fetch(&server, &[key("amd-crl", "vcek/Milan")]);
    assert_eq!(fetched.outcome.failed, []);
    // As asked; AMD's pace where nothing was asked; until the date given (the clock began
    // 2025-10-09T08:53:20Z).
    assert_eq!(fetched.sleeps, [37_000, 10_000, 353_000]);
    assert_eq!(
        fetched
            .lines
            .iter()
            .filter(|line| line.contains("status 429; it will be tried again"))
            .count(),
        2
    );
}

#[test]
fn attack_a_service_that_asks_for_patience_forever() {
    let server = Server::start(|_, _| response(429, "retry-after: 999999999999\r\n", b""));
    let fetched = fetch(&server, &[key("amd-crl", "vcek/Milan"), key("amd-chain", "vcek/Milan")]);
    assert!(fetched.sleeps.is_empty(), "a pause past the deadline is not begun");
    assert_eq!(server.paths().len(), 1);
    let [(_, first), (_, second)] = fetched.outcome.failed.as_slice() else {
        panic!("{:?}", fetched.outcome)
    };
    assert!(
        matches!(first, FetchError::Deadline { .. })
            && matches!(second, FetchError::Deadline { .. })
    );
    assert!(first.to_string().contains("429") || second.to_string().contains("429"));
    assert_eq!(first.code(), "ATT-379");
}

#[test]
fn an_outage_costs_only_what_the_service_had() {
    let server = Server::start(|path, _| match path {
        "/v1/rim/NV_GPU_DRIVER_GH100_545.00" => {
            nvidia(RIM, &vector("gpu/h100-545.00-e2e/driver-rim.xml"))
        }
        // No answer at all, or one of trouble.
        "/tdx/certification/v4/tcb?fmspc=b0c06f000000" => None,
        _ => response(502, "", b""),
    });
    let (dcap, _) = near_mpc();
    let keys = [
        key("rim", RIM),
        dcap.clone(),
        key("amd-crl", "vcek/Milan"),
        key("amd-chain", "vcek/Milan"),
    ];
    let fetched = fetch(&server, &keys);
    assert_eq!(fetched.outcome.fetched, [key("rim", RIM)]);
    assert_eq!(fetched.items.len(), 1);
    assert_eq!(fetched.outcome.failed.len(), 3);
    for (key, error) in &fetched.outcome.failed {
        let expected = matches!(
            error,
            FetchError::Unavailable { tries: 6, .. } | FetchError::ServiceDown { .. }
        );
        assert!(expected, "{key}: {error}");
    }
    let down = fetched
        .outcome
        .failed
        .iter()
        .filter(|(_, e)| matches!(e, FetchError::ServiceDown { .. }))
        .count();
    assert!(down >= 1, "a service that was given up is not asked for the rest");
    let total: u64 = fetched.sleeps.iter().sum();
    assert!(total < 600_000, "{total}");
}

#[test]
fn pauses_double_and_end() {
    let server = Server::start(|_, _| response(500, "", b""));
    let limits = Limits { pace: Duration::ZERO, ..Limits::default() };
    let fetched = fetch_with(bases(&server), limits, &[key("rim", RIM)]);
    assert_eq!(fetched.sleeps, [2_000, 4_000, 8_000, 16_000, 32_000]);
    assert_eq!(server.paths().len(), 6);
}

#[test]
fn no_service_listens() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let base = format!("http://{closed}");
    let bases = Bases { nvidia_rim: base, ..Bases::default() };
    let fetched = fetch_with(bases, Limits { tries: 2, ..Limits::default() }, &[key("rim", RIM)]);
    assert!(matches!(fetched.outcome.failed[0].1, FetchError::Unavailable { tries: 2, .. }));
}

/// One answer that is not what was asked for; what is said of it.
fn refused(keys: &[Key], answer: impl Fn() -> Answer + Send + 'static) -> FetchError {
    let server = Server::start(move |_, _| answer());
    let fetched = fetch(&server, keys);
    assert!(fetched.items.is_empty());
    assert_eq!(server.paths().len(), 1, "not tried again");
    fetched.outcome.failed[0].1.clone()
}

#[test]
fn attack_redirects_are_not_followed() {
    for status in [301, 302, 307, 308] {
        let error = refused(&[key("amd-crl", "vcek/Milan")], move || {
            response(status, "location: https://evil.example/crl\r\n", b"")
        });
        assert!(
            matches!(&error, FetchError::Redirect { to, .. } if to == "https://evil.example/crl"),
            "{error}"
        );
    }
}

#[test]
fn attack_oversized_answers() {
    let error = refused(&[milan_vcek()], || response(200, "", &vec![0x30; 64 * 1024]));
    assert!(matches!(error, FetchError::TooLong { limit: 16_384, .. }), "{error}");
    // A length that is promised only, and an endless header.
    let error = refused(&[milan_vcek()], || {
        Some(
            b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n"
                .iter()
                .copied()
                .chain([0x30; 64 * 1024])
                .collect(),
        )
    });
    assert!(matches!(error, FetchError::TooLong { .. }), "{error}");
    let server =
        Server::start(|_, _| response(200, &format!("x: {}\r\n", "y".repeat(200_000)), b""));
    let fetched = fetch(&server, &[milan_vcek()]);
    assert!(
        matches!(fetched.outcome.failed[0].1, FetchError::Unavailable { .. }),
        "{:?}",
        fetched.outcome.failed
    );
}

#[test]
fn attack_wrong_content() {
    let milan = key("amd-crl", "vcek/Milan");
    let page = refused(std::slice::from_ref(&milan), || {
        response(200, "content-type: text/html; charset=utf-8\r\n", b"<html>please log in</html>")
    });
    assert!(matches!(page, FetchError::Wrong { .. }), "{page}");
    for body in
        [amd_crl("ARK-Genoa"), vector("snp/milan-virtee/vcek.der"), vec![], vec![0x30, 0x80]]
    {
        let error = refused(std::slice::from_ref(&milan), move || response(200, "", &body));
        assert_eq!(error.code(), "ATT-379");
        assert!(matches!(error, FetchError::Content(_)), "{error}");
    }
    // Another chip's certificate.
    let error =
        refused(&[milan_vcek()], || response(200, "", &vector("snp/trustee-vcek/vcek.der")));
    assert!(matches!(error, FetchError::Content(_)), "{error}");
    for status in [400, 401, 403, 404] {
        let error = refused(&[milan_vcek()], move || response(status, "", b"no"));
        assert!(matches!(error, FetchError::Refused { status: s, .. } if s == status), "{error}");
    }
}

#[test]
fn attack_wrong_manifests() {
    let rim = || vector("gpu/h100-545.00-e2e/driver-rim.xml");
    let ask = |answer: Answer| refused(&[key("rim", RIM)], move || answer.clone());
    assert!(matches!(ask(nvidia("NV_GPU_DRIVER_GH100_550.00", &rim())), FetchError::Wrong { .. }));
    let other = vector("gpu/rims/NV_GPU_DRIVER_GH100_570.124.03_expired.xml");
    assert!(matches!(ask(nvidia(RIM, &other)), FetchError::Content(_)), "another version");
    assert!(matches!(ask(response(200, "", b"{\"id\":1}")), FetchError::Wrong { .. }));
    let text = String::from_utf8(nvidia(RIM, &rim()).unwrap()).unwrap();
    let digest = text.find("sha256").unwrap() + 9;
    let swapped = if &text[digest..=digest] == "0" { "1" } else { "0" };
    let changed = format!("{}{swapped}{}", &text[..digest], &text[digest + 1..]);
    assert!(matches!(ask(Some(changed.into_bytes())), FetchError::Wrong { .. }));
}

#[test]
fn attack_intels_answers_mixed_up_or_without_their_chain() {
    let (dcap, collateral) = near_mpc();
    let ask = |change: fn(&str, &QuoteCollateral) -> Answer| {
        let collateral = collateral.clone();
        let server = Server::start(move |path, _| change(path, &collateral));
        let fetched = fetch(&server, std::slice::from_ref(&dcap));
        assert!(fetched.items.is_empty());
        fetched.outcome.failed[0].1.to_string()
    };
    let without = ask(|path, c| {
        if path.contains("/tcb") {
            response(200, "", c.tcb_info.as_bytes())
        } else {
            intel(path, c)
        }
    });
    assert!(without.contains("no header TCB-Info-Issuer-Chain"), "{without}");
    let mixed = ask(|path, c| match path {
        "/IntelSGXRootCA.der" => response(200, "", &hex::decode(&c.pck_crl).unwrap()),
        path => intel(path, c),
    });
    assert!(mixed.contains("root CRL"), "{mixed}");
    let broken = ask(|path, c| {
        if path.contains("/qe/") {
            response(200, "SGX-Enclave-Identity-Issuer-Chain: %2\r\n", b"{}")
        } else {
            intel(path, c)
        }
    });
    assert!(broken.contains("QE identity"), "{broken}");
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_sent() {
    let fail = |bases: Bases, network: Network| {
        Fetcher::new(bases, &network, Limits::default(), FakeClock::default())
            .err()
            .unwrap()
            .to_string()
    };
    let plain = Bases { amd_kds: "http://mirror.example".into(), ..Bases::default() };
    assert!(fail(plain, Network::default()).contains("not https"));
    let network = Network { authorities: Some(b"nonsense".to_vec()), proxy: Proxy::Direct };
    assert!(fail(Bases::default(), network).contains("certificate authorities"));
    let network = Network { authorities: None, proxy: Proxy::Url("::".into()) };
    assert!(fail(Bases::default(), network).contains("the proxy"));
}

#[test]
fn a_full_disk_ends_it() {
    let crl = amd_crl("ARK-Milan");
    let server = Server::start(move |_, _| response(200, "", &crl));
    let fetcher =
        Fetcher::new(bases(&server), &direct(), Limits::default(), FakeClock::default()).unwrap();
    let keys = [key("amd-crl", "vcek/Milan"), key("amd-crl", "vlek/Milan")];
    let result = fetcher.fetch(&keys, &mut |_| {}, &mut |_| Err("full"));
    assert_eq!(result.unwrap_err(), "full");
    assert_eq!(server.paths().len(), 1);
}
