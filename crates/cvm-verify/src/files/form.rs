//! What a file can hold.

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Form {
    /// A SEV-SNP attestation report: 1184 bytes (AMD 56860, ATTESTATION_REPORT), also of a version
    /// that no verifier here reads, so that the verifier can say so.
    SnpReport,
    /// A TDX quote (Intel's DCAP ECDSA quote, TEE type 0x81).
    TdxQuote,
    /// An SGX quote of the same format (TEE type 0).
    SgxQuote,
    /// Azure's report out of its paravisor's vTPM: `HCLA`.
    HclReport,
    /// A `TPMS_ATTEST` of type quote.
    TpmQuote,
    /// A `TPMT_SIGNATURE`, or the raw bytes of an RSA signature.
    TpmSignature,
    /// A `TPMT_PUBLIC` or `TPM2B_PUBLIC`.
    TpmPublic,
    /// Register values: JSON, or 24 digests in a row.
    PcrValues,
    /// A TCG event log, of a TPM or a CCEL table.
    EventLog,
    /// A GPU's or a switch's SPDM GET_MEASUREMENTS request with its response.
    GpuReport,
    /// One DER certificate, or PEM ones.
    Certificates,
    /// A certificate revocation list.
    Crl,
    /// An OCSP response.
    Ocsp,
    /// A PEM or DER public key.
    PublicKey,
    /// An NVIDIA reference manifest (SWID tag).
    Rim,
    /// A compact JWT.
    Jwt,
    /// NVIDIA's detached EAT: a JSON array of an overall token and one for each device.
    DetachedEat,
    /// A JSON Web Key Set.
    Jwks,
    /// Intel's DCAP collateral for one quote, in one document.
    DcapCollateral,
    /// TCB info as Intel's service answers: `{"tcbInfo": …, "signature": …}`.
    TcbInfo,
    /// A quoting enclave's identity as Intel's service answers: `{"enclaveIdentity": …,
    /// "signature": …}`.
    QeIdentity,
    /// A dstack log of runtime measurements: `tcb_info.json`.
    DstackLog,
    /// 16 to 64 bytes in hex: what may be a nonce.
    Nonce,
    /// Evidence as a KBS client sends it: a JSON object that names its members.
    KbsEvidence,
}

impl Form {
    /// What attests something, and not only vouches for what does.
    pub fn is_evidence(self) -> bool {
        use Form::*;
        matches!(
            self,
            SnpReport
                | TdxQuote
                | SgxQuote
                | HclReport
                | TpmQuote
                | EventLog
                | GpuReport
                | Jwt
                | DetachedEat
                | KbsEvidence
        )
    }

    /// What vendors publish: it vouches for evidence, and the device's maker signed it.
    pub fn is_collateral(self) -> bool {
        use Form::*;
        matches!(self, Certificates | Crl | Ocsp | Rim | DcapCollateral | TcbInfo | QeIdentity)
    }

    /// Keys that may have signed tokens.
    pub fn is_key(self) -> bool {
        matches!(self, Self::Jwks | Self::PublicKey)
    }

    /// For messages: `an SEV-SNP report`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::SnpReport => "an SEV-SNP report",
            Self::TdxQuote => "a TDX quote",
            Self::SgxQuote => "an SGX quote",
            Self::HclReport => "an Azure HCL report",
            Self::TpmQuote => "a TPM quote",
            Self::TpmSignature => "a TPM signature",
            Self::TpmPublic => "a TPM public area",
            Self::PcrValues => "PCR values",
            Self::EventLog => "an event log",
            Self::GpuReport => "an SPDM measurement report",
            Self::Certificates => "certificates",
            Self::Crl => "a revocation list",
            Self::Ocsp => "an OCSP response",
            Self::PublicKey => "a public key",
            Self::Rim => "a reference manifest",
            Self::Jwt => "a JSON web token",
            Self::DetachedEat => "a detached EAT",
            Self::Jwks => "a JSON web key set",
            Self::DcapCollateral => "DCAP collateral",
            Self::TcbInfo => "Intel's TCB info",
            Self::QeIdentity => "an identity of Intel's quoting enclave",
            Self::DstackLog => "a dstack event log",
            Self::Nonce => "a nonce",
            Self::KbsEvidence => "evidence of the KBS protocol",
        }
    }
}
