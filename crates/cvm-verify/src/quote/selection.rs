//! The registers that a quote covers, and their values.

use std::collections::BTreeMap;

use super::{PcrValues, Registers, TpmError, TpmPolicy};
use cvm_evidence::tpm::{Digest, HashAlg, PcrSelection};

/// The registers that a quote covers.
pub(super) struct Selected {
    pub text: String,
    /// The bank that claims name first.
    pub bank: HashAlg,
    /// In the quote's order.
    registers: Vec<(HashAlg, Vec<u32>)>,
}

impl Selected {
    pub(super) fn parse(selection: &[PcrSelection], policy: &TpmPolicy) -> Result<Self, TpmError> {
        let text = selection.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        let text = if text.is_empty() { "nothing".into() } else { text };
        let refuse =
            |problem: &str| TpmError::Selection { found: text.clone(), problem: problem.into() };
        let mut registers: Vec<(HashAlg, Vec<u32>)> = Vec::new();
        for bank in selection {
            // The digest alone does not say what it covers: only this list does.
            let of_bank: Vec<u32> = bank.registers().collect();
            if of_bank.is_empty() {
                continue;
            }
            let problem = match HashAlg::from_id(bank.hash) {
                Some(HashAlg::Sha1) if !policy.allow_sha1 => "the policy does not accept SHA-1",
                Some(alg) if registers.iter().any(|(known, _)| *known == alg) => {
                    return Err(refuse("one bank is named twice"));
                }
                Some(alg) => {
                    registers.push((alg, of_bank));
                    continue;
                }
                None => "that bank's algorithm is not known here",
            };
            return Err(TpmError::Bank { found: text, problem: problem.into() });
        }
        let preferred = [HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512, HashAlg::Sha1];
        let bank =
            preferred.into_iter().find(|alg| registers.iter().any(|(known, _)| known == alg));
        match bank {
            Some(bank) => Ok(Self { text, bank, registers }),
            None => Err(refuse("that covers no register")),
        }
    }

    /// The values of the registers covered, in all banks, if they are those quoted (part 3 §18.4:
    /// one digest, with the signature's hash, in the order of the selection).
    pub(super) fn check(
        &self,
        values: &PcrValues,
        hash: HashAlg,
        quoted: &[u8],
    ) -> Result<BTreeMap<HashAlg, Registers>, TpmError> {
        let mut banks: BTreeMap<HashAlg, Registers> = BTreeMap::new();
        let mut covered: Vec<u8> = Vec::new();
        for (bank, registers) in &self.registers {
            for register in registers {
                let value: &Digest =
                    values.get(*bank, *register).ok_or_else(|| TpmError::Selection {
                        found: self.text.clone(),
                        problem: format!(
                            "no value is shown for register {register} of bank {bank}"
                        ),
                    })?;
                covered.extend(value.as_bytes());
                banks.entry(*bank).or_default().insert(*register, *value);
            }
        }
        let found = hash.digest([&covered[..]]);
        if found.as_bytes() != quoted {
            return Err(TpmError::PcrDigest {
                found: found.to_string(),
                quoted: hex::encode(quoted),
                selection: self.text.clone(),
            });
        }
        Ok(banks)
    }
}
