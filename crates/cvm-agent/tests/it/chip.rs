//! A chip with SEV-SNP, minted: it signs what its guest asks for, under an authority of the test's
//! own.

use std::sync::Arc;

use aws_lc_rs::signature::EcdsaKeyPair;
use cvm_agent::attester::OpenDevice;
use cvm_base::Bytes;
use cvm_collateral::tee::Vendors;
use cvm_collect::{CertificateKind, CollectError, Device, Kind, Raw, SnpCertificate};
use cvm_evidence::{platform::SnpReference, reference::Platforms};
use cvm_verify::{snp::SnpRoots, tdx::intel_roots};

use crate::snp_mint;

const MILAN: [u8; 3] = [0x19, 0x01, 0x01];
/// The launch digest of `snp_mint::report`.
pub const MEASUREMENT: [u8; 48] = [0x3e; 48];

/// Who makes chips.
pub struct Maker(snp_mint::Line);

/// One chip.
pub struct Chip {
    vcek: Vec<u8>,
    key: EcdsaKeyPair,
    /// Applied to each report before it is signed.
    change: fn(&mut [u8]),
    /// Whether the host hands the chip's certificate to the guest.
    certified: bool,
}

impl Maker {
    pub fn new() -> Self {
        Self(snp_mint::line("Milan"))
    }

    pub fn roots(&self) -> SnpRoots {
        self.0.roots()
    }

    /// This maker, and the genuine Intel.
    pub fn vendors(&self) -> Vendors {
        Vendors::new(self.roots(), intel_roots().unwrap())
    }

    pub fn chip(&self) -> Arc<Chip> {
        self.chip_that(|_| {}, true)
    }

    pub fn chip_that(&self, change: fn(&mut [u8]), certified: bool) -> Arc<Chip> {
        let (vcek, key) = snp_mint::endorse(&self.0.ask.1, &snp_mint::vcek("Milan-B0"));
        Arc::new(Chip { vcek, key, change, certified })
    }
}

impl Chip {
    /// The chip's signed report over `report_data`.
    pub fn report(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let mut report = snp_mint::report(3, MILAN, &snp_mint::vcek("Milan-B0"));
        report[0x50..0x90].copy_from_slice(report_data);
        (self.change)(&mut report);
        snp_mint::sign(report, &self.key)
    }

    pub fn vcek(&self) -> &[u8] {
        &self.vcek
    }
}

struct Guest(Arc<Chip>);

impl Device for Guest {
    fn kind(&self) -> Kind {
        Kind::Snp
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let vcek = SnpCertificate { kind: CertificateKind::Vcek, bytes: self.0.vcek.clone() };
        let certificates = if self.0.certified { vec![vcek] } else { Vec::new() };
        Ok(Raw::Snp { report: self.0.report(report_data), certificates })
    }
}

/// A guest's device on that chip.
pub fn device(chip: &Arc<Chip>) -> OpenDevice {
    let chip = chip.clone();
    Box::new(move || Ok(Box::new(Guest(chip.clone()))))
}

/// Reference values of an image that measures this on SNP.
pub fn platforms(measurement: [u8; 48]) -> Platforms {
    let tcb_floor = "milan-b1=3.1.20.213".parse().unwrap();
    let snp = SnpReference {
        platform: "test".into(),
        measurement: Bytes(measurement),
        tcb_floor,
        variants: vec![],
    };
    Platforms { snp: vec![snp], ..Platforms::default() }
}
