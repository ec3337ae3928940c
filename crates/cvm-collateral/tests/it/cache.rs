//! The signed cache: what is filed under what, what a changed folder gives, and what a date means.

use std::{fs, path::Path};

use crate::support::{amd_crl, vector};
use cvm_base::Explain as _;
use cvm_collateral::{
    Cache, CacheError, CollateralError, DcapTee, Item, Key, PckCa, Product, QuoteCollateral,
    Signer, Tcb, Writer, content, wanted,
};
use ed25519_dalek::SigningKey;

const COLLECTED: u64 = 1_760_000_000; // 2025-10-09

fn collector() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn item(bytes: Vec<u8>) -> Item {
    let (key, bytes) = content::identify(&bytes).unwrap();
    Item { key, bytes, source: "a test".into(), fetched_at: COLLECTED }
}

/// A folder with one piece of each kind.
fn filled(folder: &Path) {
    let mut writer = Writer::open(folder, collector(), &[]).unwrap();
    for file in [
        "snp/milan-virtee/vcek.der",
        "snp/turin-virtee-vcek-only/vcek.der",
        "snp/trustee-vlek/vlek.der",
        "snp/_amd-roots/ask_ark_milan.pem",
        "snp/_amd-roots/ask_ark_milan_vlek.pem",
        "tdx/collateral/confai-50806f000000-2026-03.json",
        "tdx/collateral/phala-sgx_quote.json",
        "tdx/collateral/near-mpc.json",
    ] {
        assert!(writer.put(&item(vector(file))).unwrap(), "{file}");
    }
    assert!(writer.put(&item(amd_crl("ARK-Milan"))).unwrap());
    let rim = Item {
        key: Key::parse("rim", "NV_GPU_DRIVER_GH100_545.00").unwrap(),
        bytes: vector("gpu/h100-545.00-e2e/driver-rim.xml"),
        source: "a test".into(),
        fetched_at: COLLECTED,
    };
    assert!(writer.put(&rim).unwrap());
}

fn open(folder: &Path) -> Result<Cache, CacheError> {
    Cache::open(folder, &[collector().verifying_key()])
}

#[test]
fn every_kind_is_found_under_what_it_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let cache = open(folder.path()).unwrap();
    assert_eq!(cache.entries().count(), 10);
    assert_eq!(cache.signer(), &collector().verifying_key());

    // The report names the chip and the TCB.
    let report = vector("snp/milan-virtee/report.bin");
    let wanted = wanted::by_snp_report(&report, Some(Product::Milan)).unwrap();
    let kinds: Vec<_> = wanted.iter().map(Key::kind).collect();
    assert_eq!(kinds, ["vcek", "amd-chain", "amd-crl"]);
    for key in &wanted {
        cache.find(key, COLLECTED).unwrap();
    }
    let Key::Vcek { product, hwid, tcb } = &wanted[0] else { panic!("{:?}", wanted[0]) };
    assert_eq!(tcb.to_string(), "bl3-tee0-snp8-ucode115");
    let vcek_key = |product, hwid: &[u8], tcb| Key::Vcek { product, hwid: hwid.to_vec(), tcb };
    let vcek = cache.find(&vcek_key(*product, hwid, *tcb), COLLECTED).unwrap();
    assert_eq!(vcek.bytes, vector("snp/milan-virtee/vcek.der"));
    assert_eq!(vcek.entry.valid_until, 1_901_474_623, "2030-04-03T19:23:43Z, as openssl prints it");
    let other = Tcb { microcode: 116, ..*tcb };
    assert!(matches!(
        cache.find(&vcek_key(*product, hwid, other), COLLECTED),
        Err(CollateralError::Missing { .. })
    ));

    let turin = Tcb { fmc: Some(0), boot_loader: 0, tee: 0, snp: 0, microcode: 9 };
    let chip = [0x1e, 0x55, 0x0a, 0x8e, 0xe5, 0xcf, 0x9f, 0x4d];
    cache.find(&vcek_key(Product::Turin, &chip, turin), COLLECTED).unwrap();

    let vlek = Tcb { fmc: None, boot_loader: 4, tee: 0, snp: 24, microcode: 217 };
    let csp = "CN=cc-us-east-2.amazonaws.com".to_owned();
    let vlek = Key::Vlek { product: Product::Milan, csp, tcb: vlek };
    cache.find(&vlek, COLLECTED).unwrap();
    let late = cache.find(&vlek, 1_766_000_000).unwrap_err();
    assert!(matches!(late, CollateralError::Expired { .. }), "a VLEK lives one year: {late}");
    let chain = cache.find(&Key::AmdChain(Signer::Vlek, Product::Milan), COLLECTED).unwrap();
    assert_eq!(chain.entry.source, "a test");
    cache.find(&Key::AmdCrl(Signer::Vcek, Product::Milan), COLLECTED).unwrap();

    for (quote, tee, ca, now) in [
        ("phala-sgx_quote", DcapTee::Sgx, PckCa::Processor, 1_751_624_924),
        ("near-mpc", DcapTee::Tdx, PckCa::Platform, 1_787_894_500),
    ] {
        let keys = wanted::by_quote(&vector(&format!("tdx/quotes/{quote}.bin"))).unwrap();
        let [Key::Dcap { tee: found, ca: authority, .. }] = keys[..] else { panic!("{keys:?}") };
        assert_eq!((found, authority), (tee, ca), "{quote}");
        let stored = cache.find(&keys[0], now).unwrap();
        let collateral = QuoteCollateral::parse(stored.bytes).unwrap();
        let file = vector(&format!("tdx/collateral/{quote}.json"));
        assert_eq!(collateral, QuoteCollateral::parse(&file).unwrap());
        let late = cache.find(&keys[0], now + 90 * 86_400).unwrap_err();
        assert_eq!(late.code(), "ATT-375", "{late}");
    }
    let rim = cache.rim("NV_GPU_DRIVER_GH100_545.00", 1_700_000_000).unwrap();
    assert_eq!(rim.bytes, vector("gpu/h100-545.00-e2e/driver-rim.xml"));
    assert!(matches!(
        cache.rim("NV_GPU_DRIVER_GH100_545.00", 2_700_000_000),
        Err(CollateralError::Expired { .. })
    ));
}

#[test]
fn another_programs_chain_of_a_platform_is_never_stored() {
    let (_, stored) = content::identify(&vector("tdx/collateral/near-mpc.json")).unwrap();
    assert!(!String::from_utf8(stored).unwrap().contains("pck_certificate_chain"));
}

#[test]
fn the_validity_is_that_of_the_part_which_ends_first() {
    // The PCK CRL's next update, as openssl prints it; the TCB info's is a quarter of an hour
    // later.
    let (key, stored) = content::identify(&vector("tdx/collateral/phala-tdx_quote.json")).unwrap();
    assert_eq!(key.name(), "tdx/b0c06f000000/platform");
    assert_eq!(content::check(&key, &stored).unwrap(), 1_752_919_235);
}

#[test]
fn a_packed_cache_is_the_same_cache() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let cache = open(folder.path()).unwrap();
    let packed = cache.pack();
    assert_eq!(Cache::unpack(&packed, &[collector().verifying_key()]).unwrap(), cache);
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    assert!(matches!(Cache::unpack(&packed, &[other]), Err(CollateralError::Signer { .. })));
    // Every byte of the index that is signed, and the signature, at a stride.
    for at in (0..packed.len() / 8).step_by(1009) {
        let mut changed = packed.clone();
        changed[at] ^= 0x04;
        if let Ok(read) = Cache::unpack(&changed, &[collector().verifying_key()]) {
            assert_eq!(
                read.entries().collect::<Vec<_>>(),
                cache.entries().collect::<Vec<_>>(),
                "byte {at}"
            );
        }
    }
}

#[test]
fn attack_index_of_somebody_else_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let index = folder.path().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    let other = SigningKey::from_bytes(&[8; 32]);
    let refused = |text: String, keys: &[SigningKey]| {
        fs::write(&index, text).unwrap();
        let keys: Vec<_> = keys.iter().map(SigningKey::verifying_key).collect();
        Cache::open(folder.path(), &keys).unwrap_err().code()
    };
    assert_eq!(refused(text.clone(), std::slice::from_ref(&other)), "ATT-371");
    assert_eq!(refused(text.clone(), &[]), "ATT-371");
    let until = format!("\"valid_until\": {}", 1_901_474_623_u64);
    assert!(text.contains(&until));
    assert_eq!(
        refused(text.replace(&until, "\"valid_until\": 9901474623"), &[collector()]),
        "ATT-371"
    );
    let signer = hex::encode(collector().verifying_key().to_bytes());
    let theirs = hex::encode(other.verifying_key().to_bytes());
    assert_eq!(refused(text.replace(&signer, &theirs), &[collector(), other]), "ATT-371");
    assert_eq!(refused(text.replace("\"signer\"", "\"signers\""), &[collector()]), "ATT-370");
    assert_eq!(
        refused(text.replace("\"signer\"", "\"x\": 1, \"signer\""), &[collector()]),
        "ATT-370"
    );
    assert_eq!(refused(String::new(), &[collector()]), "ATT-370");
    assert_eq!(refused(" ".repeat(1024 * 1024 + 1), &[collector()]), "FILE-003");
    fs::remove_file(&index).unwrap();
    assert_eq!(open(folder.path()).unwrap_err().code(), "FILE-001");
}

#[test]
fn attack_files_changed_removed_exchanged_or_linked() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let files = folder.path().join("files");
    let mut names: Vec<_> = fs::read_dir(&files).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 10);
    let code = || open(folder.path()).unwrap_err().code();
    for name in &names {
        let good = fs::read(name).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        fs::write(name, &bad).unwrap();
        assert_eq!(code(), "ATT-372", "{}", name.display());
        fs::remove_file(name).unwrap();
        assert_eq!(code(), "ATT-372");
        // Not even a link to the right content: a folder from elsewhere must not reach out of
        // itself.
        let outside = folder.path().join("outside");
        fs::write(&outside, &good).unwrap();
        std::os::unix::fs::symlink(&outside, name).unwrap();
        assert_eq!(code(), "ATT-372");
        fs::remove_file(name).unwrap();
        fs::write(name, vec![0; 5 * 1024 * 1024]).unwrap();
        assert_eq!(code(), "FILE-003");
        fs::write(name, &good).unwrap();
    }
    open(folder.path()).unwrap();
}

#[test]
fn attack_a_piece_filed_under_another_key() {
    let vcek = vector("snp/milan-virtee/vcek.der");
    let (key, _) = content::identify(&vcek).unwrap();
    let refused = |key: &Key, bytes: &[u8]| content::check(key, bytes).unwrap_err();
    let Key::Vcek { product, hwid, tcb } = key else { panic!("{key:?}") };
    let older = Tcb { snp: 7, ..tcb };
    assert_eq!(
        refused(&Key::Vcek { product, hwid: hwid.clone(), tcb: older }, &vcek).code(),
        "ATT-373"
    );
    assert_eq!(refused(&Key::Vcek { product, hwid: vec![1; 64], tcb }, &vcek).code(), "ATT-373");
    let rim = vector("gpu/h100-545.00-e2e/driver-rim.xml");
    refused(&Key::Rim("NV_GPU_DRIVER_GH100_550.90.07".into()), &rim);
    refused(&Key::Rim("NV_GPU_DRIVER_GH100_545.00".into()), &vcek);
    let milan = vector("snp/_amd-roots/ask_ark_milan.pem");
    refused(&Key::AmdChain(Signer::Vcek, Product::Genoa), &milan);
    refused(&Key::AmdChain(Signer::Vlek, Product::Milan), &milan);
    refused(&Key::AmdCrl(Signer::Vcek, Product::Genoa), &amd_crl("ARK-Milan"));
    refused(&Key::AmdCrl(Signer::Vcek, Product::Milan), &amd_crl("Intel SGX Root CA"));
    let (dcap, stored) = content::identify(&vector("tdx/collateral/near-mpc.json")).unwrap();
    refused(&Key::parse("dcap", "tdx/50806f000000/platform").unwrap(), &stored);
    // Mixed halves: TDX's TCB info beside SGX's QE identity.
    let sgx = vector("tdx/collateral/phala-sgx_quote.json");
    let mut mixed: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    mixed["qe_identity"] =
        serde_json::from_slice::<serde_json::Value>(&sgx).unwrap()["qe_identity"].clone();
    refused(&dcap, mixed.to_string().as_bytes());
    refused(&dcap, &vec![b' '; 5 * 1024 * 1024]);
}

#[test]
fn what_was_collected_later_stays_and_what_is_replaced_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(folder.path(), collector(), &[]).unwrap();
    let newer = Item { fetched_at: COLLECTED + 1, ..item(amd_crl("ARK-Milan")) };
    assert!(writer.put(&newer).unwrap());
    assert!(
        !writer.put(&item(amd_crl("ARK-Milan"))).unwrap(),
        "an older list never replaces a newer one"
    );
    // A second writer must wait; a reader need not.
    let second = Writer::open(folder.path(), collector(), &[]).unwrap_err();
    assert_eq!(second.code(), "ATT-378");
    open(folder.path()).unwrap();
    let newest = Item { fetched_at: COLLECTED + 2, ..item(amd_crl("ARK-Milan")) };
    assert!(writer.put(&newest).unwrap());
    assert_eq!(fs::read_dir(folder.path().join("files")).unwrap().count(), 1);
    drop(writer);

    // Another collector's cache is merged only when its signer is trusted.
    let theirs = tempfile::tempdir().unwrap();
    let other = SigningKey::from_bytes(&[8; 32]);
    let mut writer = Writer::open(theirs.path(), other.clone(), &[]).unwrap();
    assert_eq!(writer.merge(open(folder.path()).unwrap()).unwrap(), 1);
    drop(writer);
    assert_eq!(Writer::open(theirs.path(), collector(), &[]).unwrap_err().code(), "ATT-371");
    let writer = Writer::open(theirs.path(), collector(), &[other.verifying_key()]).unwrap();
    assert_eq!(writer.entries().count(), 1);
}

#[test]
fn a_power_cut_before_the_index_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let before = open(folder.path()).unwrap();
    // What a power cut leaves: a new file that no index names, and a temporary one.
    fs::write(folder.path().join("files/amd-crl-00.crl"), b"x").unwrap();
    fs::write(folder.path().join("files/.flare-cvm-x"), b"x").unwrap();
    assert_eq!(open(folder.path()).unwrap(), before);
    let mut writer = Writer::open(folder.path(), collector(), &[]).unwrap();
    writer.put(&Item { fetched_at: COLLECTED + 1, ..item(amd_crl("ARK-Milan")) }).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("files")).unwrap().count(), 10);
}

#[test]
fn what_evidence_needs_or_why_that_is_not_known() {
    let report = vector("snp/trustee-vlek/report.bin");
    let names: Vec<_> =
        wanted::by_snp_report(&report, None).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["amd-chain vlek/Milan", "amd-crl vlek/Milan"]);
    let refused =
        |report: &[u8], product| wanted::by_snp_report(report, product).unwrap_err().to_string();
    assert!(refused(&report, Some(Product::Turin)).contains("not from Turin"));
    let old = vector("snp/milan-virtee/report.bin");
    assert!(refused(&old, None).contains("--product"));
    let mut masked = old.clone();
    masked[0x1a0..0x1e0].fill(0);
    assert!(refused(&masked, Some(Product::Milan)).contains("masked"));
    assert!(refused(&old[..1183], Some(Product::Milan)).contains("1184"));
    for quote in ["trustee-tdx_quote_4", "near-mpc"] {
        assert_eq!(wanted::by_quote(&vector(&format!("tdx/quotes/{quote}.bin"))).unwrap().len(), 1);
    }
    for bytes in [&b""[..], &report, b"-----BEGIN CERTIFICATE-----"] {
        assert!(wanted::by_quote(bytes).is_err());
    }
}
