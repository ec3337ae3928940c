//! PCR values, in the forms in which tools write them.

use std::collections::BTreeMap;

use serde_json::Value;

use cvm_evidence::{
    AttestError,
    tpm::{Digest, HashAlg, Quote},
};

/// Four banks of 24 registers in hex, indented, are 20 KiB.
const MAX_BYTES: usize = 64 * 1024;
/// A selection has at most four bytes.
const LAST_REGISTER: u32 = 31;
/// How many registers a file of bare values has: those of a PC Client TPM.
const BARE_REGISTERS: usize = 24;

/// PCR values as somebody shows them: nothing vouches for them until a quote's digest does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PcrValues(BTreeMap<(HashAlg, u32), Digest>);

impl PcrValues {
    /// Reads values from JSON (`{"0": hex, …}`, `{"sha256": {"0": hex, …}, …}` or `[hex, …]` from
    /// register 0 on) or from the bare bytes of registers 0 to 23 of one bank, one after the
    /// other.
    ///
    /// # Errors
    /// [`AttestError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let fail = |problem: String| AttestError::malformed("PCR values", problem);
        if bytes.len() > MAX_BYTES {
            return Err(fail(format!("{} bytes, at most {MAX_BYTES} allowed", bytes.len())));
        }
        let bare = HashAlg::ALL.into_iter().find(|alg| bytes.len() == BARE_REGISTERS * alg.size());
        match (serde_json::from_slice(bytes), bare) {
            (Ok(json), _) => Self::from_json(&json),
            (Err(_), Some(alg)) => {
                let values =
                    bytes.chunks_exact(alg.size()).filter_map(|value| Digest::new(alg, value));
                Ok(Self(
                    (0..).zip(values).map(|(register, value)| ((alg, register), value)).collect(),
                ))
            }
            (Err(error), None) => Err(fail(format!(
                "{} bytes are not 24 values of one bank, nor JSON: {error}",
                bytes.len()
            ))),
        }
    }

    /// [`parse`](Self::parse), of JSON that was read already.
    ///
    /// # Errors
    /// [`AttestError::Malformed`].
    pub fn from_json(json: &Value) -> Result<Self, AttestError> {
        let mut values = Self::default();
        match json {
            Value::Array(list) => {
                for (register, value) in list.iter().enumerate() {
                    values.insert(None, &register.to_string(), value)?;
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    match (HashAlg::ALL.into_iter().find(|alg| alg.name() == name), value) {
                        (Some(bank), Value::Object(registers)) => {
                            for (register, value) in registers {
                                values.insert(Some(bank), register, value)?;
                            }
                        }
                        _ => values.insert(None, name, value)?,
                    }
                }
            }
            _ => {
                return Err(AttestError::malformed(
                    "PCR values",
                    "neither a JSON object nor an array",
                ));
            }
        }
        Ok(values)
    }

    /// These values, from register 0 on.
    pub fn from_list(list: impl IntoIterator<Item = Digest>) -> Self {
        Self(
            (0..=LAST_REGISTER)
                .zip(list)
                .map(|(register, value)| ((value.alg(), register), value))
                .collect(),
        )
    }

    /// The bare bytes of exactly the registers that a quote covers, in its order (`tpm2_pcrread
    /// -o`); none, if they are not what it covers.
    pub fn of_quote(quote: &Quote, bytes: &[u8]) -> Option<Self> {
        let digest_of = |alg: HashAlg| alg.digest([bytes]);
        if !HashAlg::ALL.into_iter().any(|alg| digest_of(alg).as_bytes() == quote.pcr_digest) {
            return None;
        }
        let mut values = Self::default();
        let mut rest = bytes;
        for bank in &quote.selection {
            let alg = HashAlg::from_id(bank.hash)?;
            for register in bank.registers() {
                let (value, after) = rest.split_at_checked(alg.size())?;
                values.0.insert((alg, register), Digest::new(alg, value)?);
                rest = after;
            }
        }
        rest.is_empty().then_some(values)
    }

    /// Adds another file's values, of other banks or registers.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a register that both give, with two values.
    pub fn add(&mut self, other: Self) -> Result<(), AttestError> {
        for ((bank, register), value) in other.0 {
            if self.0.insert((bank, register), value).is_some_and(|known| known != value) {
                let problem = format!("{} register {register} has two values", bank.name());
                return Err(AttestError::malformed("PCR values", problem));
            }
        }
        Ok(())
    }

    /// The value shown for a register.
    pub fn get(&self, bank: HashAlg, register: u32) -> Option<&Digest> {
        self.0.get(&(bank, register))
    }

    /// How many values are shown.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no value is shown.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(
        &mut self,
        bank: Option<HashAlg>,
        register: &str,
        value: &Value,
    ) -> Result<(), AttestError> {
        let shown = || register.chars().take(20).collect::<String>();
        let fail = |problem: &str| {
            AttestError::malformed("PCR values", format!("register {:?}: {problem}", shown()))
        };
        // One spelling for each: no sign, no leading zero.
        let plain = register == "0" || register.starts_with(|c: char| matches!(c, '1'..='9'));
        let index = register.parse().ok().filter(|index| plain && *index <= LAST_REGISTER);
        let index = index.ok_or_else(|| fail("expected 0 to 31"))?;
        let digest = value
            .as_str()
            .and_then(Digest::from_hex)
            .ok_or_else(|| fail("its value is not a digest in hex"))?;
        if bank.is_some_and(|bank| bank != digest.alg()) {
            return Err(fail("a digest of another bank's length"));
        }
        self.0.insert((digest.alg(), index), digest);
        Ok(())
    }
}
