//! Which collateral a piece of evidence needs. Only the fields that name it are read, and nothing
//! is verified.

use crate::{
    certificates, dcap,
    error::CollateralError,
    key::{DcapTee, Key, Product, Signer, Tcb},
};
use cvm_evidence::tpm::Reader;
use cvm_verify::snp::REPORT_BYTES;

/// What an SEV-SNP report needs: certificate, chain and revocation list. Give `product` for reports
/// of version 2, which do not name theirs; a report that does must agree.
///
/// A VLEK is not among them: only the cloud provider can get it, and gives it to the guest with the
/// report.
///
/// # Errors
/// [`CollateralError::Unknown`] for bytes that are not a report, and for one without a product or a
/// chip.
pub fn by_snp_report(report: &[u8], product: Option<Product>) -> Result<Vec<Key>, CollateralError> {
    if report.len() < REPORT_BYTES {
        return Err(not_snp(NO_REPORT));
    }
    let named = SnpReport::read(report)?;
    let product = match (named.product, product) {
        (Some(stated), Some(given)) if stated != given => {
            return Err(not_snp(&format!(
                "it is from {}, not from {}",
                stated.as_str(),
                given.as_str()
            )));
        }
        (Some(product), _) | (None, Some(product)) => product,
        (None, None) => {
            return Err(not_snp("version 2 does not name the processor: say --product"));
        }
    };
    let mut keys = vec![Key::AmdChain(named.signer, product), Key::AmdCrl(named.signer, product)];
    if named.signer == Signer::Vcek {
        let (hwid, tcb) = (named.hwid(product).to_vec(), Tcb::from_version(product, named.tcb));
        if hwid.iter().all(|byte| *byte == 0) {
            return Err(not_snp(
                "its chip is masked: the host must turn MASK_CHIP_ID off, or give the VCEK to the \
                 guest",
            ));
        }
        keys.insert(0, Key::Vcek { product, hwid, tcb });
    }
    Ok(keys)
}

/// Whether the piece under `key` can vouch for a report (or for its signed part). Several may: a
/// report of version 2 does not name its product, and no report names its cloud provider.
pub fn serves_snp_report(key: &Key, report: &[u8]) -> bool {
    let Ok(named) = SnpReport::read(report) else { return false };
    let of_product = |product: Product| named.product.is_none_or(|stated| stated == product);
    let at_tcb = |product, tcb| Tcb::from_version(product, named.tcb) == tcb;
    match key {
        Key::Vcek { product, hwid, tcb } => {
            named.signer == Signer::Vcek
                && of_product(*product)
                && named.hwid(*product) == hwid
                && at_tcb(*product, *tcb)
        }
        Key::Vlek { product, tcb, .. } => {
            named.signer == Signer::Vlek && of_product(*product) && at_tcb(*product, *tcb)
        }
        Key::AmdChain(_, product) | Key::AmdCrl(_, product) => of_product(*product),
        Key::Dcap { .. } | Key::Rim(_) => false,
    }
}

/// The fields of a report that tell who signed it (AMD 56860, table 23).
struct SnpReport<'a> {
    product: Option<Product>,
    signer: Signer,
    chip_id: &'a [u8; 64],
    tcb: [u8; 8],
}

impl<'a> SnpReport<'a> {
    fn read(report: &'a [u8]) -> Result<Self, CollateralError> {
        let at = |at: usize| report.get(at).copied();
        let (Some(version @ 2..=5), true) =
            (at(0), report.len() >= SIGNED_BYTES && report[1..4] == [0; 3])
        else {
            return Err(not_snp(NO_REPORT));
        };
        let product = match (version, at(0x188), at(0x189)) {
            (2, ..) => None,
            (_, Some(family), Some(model)) => Some(
                Product::from_cpuid(family, model)
                    .ok_or_else(|| not_snp("its processor is not known"))?,
            ),
            _ => return Err(not_snp("too short")),
        };
        // KEY_INFO, bits 4:2: 0 VCEK, 1 VLEK.
        let signer = match at(0x48).map(|info| info >> 2 & 7) {
            Some(0) => Signer::Vcek,
            Some(1) => Signer::Vlek,
            _ => return Err(not_snp("it is signed with neither a VCEK nor a VLEK")),
        };
        let chip_id = report
            .get(0x1a0..)
            .and_then(<[u8]>::first_chunk)
            .ok_or_else(|| not_snp("too short"))?;
        let tcb = report
            .get(0x180..)
            .and_then(<[u8]>::first_chunk)
            .ok_or_else(|| not_snp("too short"))?;
        Ok(Self { product, signer, chip_id, tcb: *tcb })
    }

    fn hwid(&self, product: Product) -> &[u8] {
        &self.chip_id[..product.hwid_bytes()]
    }
}

/// How much of a report is signed.
const SIGNED_BYTES: usize = 0x2a0;
const NO_REPORT: &str = "1184 bytes of version 2 to 5 expected";

fn not_snp(problem: &str) -> CollateralError {
    CollateralError::unknown("an SNP report", problem)
}

/// What a TDX or SGX quote needs: the DCAP collateral for the platform in its PCK certificate.
///
/// # Errors
/// [`CollateralError::Unknown`] for bytes that are not a quote, or have no PCK certificate in them.
pub fn by_quote(quote: &[u8]) -> Result<Vec<Key>, CollateralError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let fail = |problem: &str| CollateralError::unknown("a quote", problem);
    let mut header = Reader::new("quote", quote);
    let tee = match (header.u16_le(), header.u16_le(), header.u32_le()) {
        (Ok(3..=5), Ok(_key_type), Ok(0)) => DcapTee::Sgx,
        (Ok(4 | 5), Ok(_key_type), Ok(0x81)) => DcapTee::Tdx,
        _ => return Err(fail("version 3 to 5 for SGX or TDX expected")),
    };
    // The certification data of type 5 is PEM, its leaf first; where it lies differs from version
    // to version.
    let at = |needle: &[u8], from: usize| {
        quote.get(from..)?.windows(needle.len()).position(|w| w == needle)
    };
    let begin = at(BEGIN, 0)
        .ok_or_else(|| fail("no PCK certificate in it (certification data of another type)"))?;
    let length =
        at(END, begin).ok_or_else(|| fail("a PCK certificate without an end"))? + END.len();
    let pem = quote.get(begin..begin + length).unwrap_or_default();
    let leaf = certificates::chain(pem).map_err(|problem| fail(&problem))?;
    let (fmspc, ca) =
        dcap::platform(leaf.first().ok_or_else(|| fail("no PCK certificate in it"))?)?;
    Ok(vec![Key::Dcap { tee, fmspc, ca }])
}
