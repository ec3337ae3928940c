//! One mapping of a configuration file, read key by key. An unknown key is an error, so that
//! nothing is silently ignored.

use std::ops::RangeInclusive;

use serde_yaml::{Mapping, Value};

use super::CcConfigError;

type Result<T> = std::result::Result<T, CcConfigError>;

/// An error shows at most this many characters of a text from the file.
const SHOWN: usize = 80;
/// No list of the file may be longer.
const MAX_ITEMS: usize = 1024;

/// A mapping and its place in the file.
pub(super) struct Section {
    place: String,
    map: Mapping,
}

/// A value with its place in the file, which a reader then turns into what it must be.
pub(super) struct Item {
    /// The key with its place, such as `cc_issuers[0].path`.
    pub(super) key: String,
    value: Value,
}

/// The closest of `known`, if any is close enough to be meant.
pub(super) fn closest<'a>(
    found: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distance = |known: &str| strsim::damerau_levenshtein(&found.to_lowercase(), known);
    let best = known.into_iter().map(|known| (distance(known), known)).min()?;
    (best.0 <= 1 + found.len().min(best.1.len()) / 4).then_some(best.1)
}

pub(super) fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// A value as an error shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => format!("{:?}", cut(text)),
        Value::Sequence(_) => "a list".into(),
        Value::Mapping(_) => "a mapping".into(),
        Value::Tagged(tagged) => format!("a value of the type {}", cut(&tagged.tag.to_string())),
    }
}

impl Section {
    /// The file itself.
    pub(super) fn root(bytes: &[u8], known: &[&str]) -> Result<Self> {
        cvm_layout::yaml::check(bytes).map_err(CcConfigError::Yaml)?;
        let unreadable = |e: serde_yaml::Error| CcConfigError::Yaml(cut(&e.to_string()));
        let mut value: Value = serde_yaml::from_slice(bytes).map_err(unreadable)?;
        // PyYAML, through which NVFLARE reads the same file, knows `<<`.
        value.apply_merge().map_err(unreadable)?;
        match value {
            Value::Mapping(map) => Self::new(String::new(), map, known),
            other => {
                Err(CcConfigError::Yaml(format!("expected a mapping, found {}", shown(&other))))
            }
        }
    }

    /// Refuses a key that is not `known` before anything else is said about the mapping.
    fn new(place: String, map: Mapping, known: &[&str]) -> Result<Self> {
        let section = Self { place, map };
        for key in section.map.keys() {
            let name = key.as_str().map_or_else(|| shown(key), cut);
            if !known.contains(&name.as_str()) {
                let closest = closest(&name, known.iter().copied()).map(|key| section.name(key));
                return Err(CcConfigError::UnknownKey {
                    key: section.name(&name),
                    closest,
                    known: known.join(", "),
                });
            }
        }
        Ok(section)
    }

    /// A key with its place.
    pub(super) fn name(&self, key: &str) -> String {
        if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) }
    }

    /// Takes a key's value out, if it is there.
    pub(super) fn optional(&mut self, key: &str) -> Option<Item> {
        let value = self.map.remove(key)?;
        Some(Item { key: self.name(key), value })
    }

    /// Takes a key's value out, or says what would have been right.
    pub(super) fn required(&mut self, key: &str, expected: &'static str) -> Result<Item> {
        self.optional(key).ok_or_else(|| CcConfigError::Missing { key: self.name(key), expected })
    }
}

impl Item {
    pub(super) fn wrong<T>(&self, expected: &'static str) -> Result<T> {
        Err(CcConfigError::Value { key: self.key.clone(), expected, found: shown(&self.value) })
    }

    /// Refuses a value that NVFLARE knows.
    pub(super) fn refuse<T>(&self, reason: &'static str, instead: &'static str) -> Result<T> {
        Err(CcConfigError::Refused {
            key: self.key.clone(),
            found: shown(&self.value),
            reason,
            instead,
        })
    }

    pub(super) fn text(self, expected: &'static str) -> Result<String> {
        match self.value {
            Value::String(text) if !text.is_empty() && !text.contains('\0') => Ok(text),
            _ => self.wrong(expected),
        }
    }

    /// A text without a tag of its own: `Value::as_str` would look through one.
    pub(super) fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A text that another type reads.
    pub(super) fn parsed<T>(
        self,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T> {
        match self.plain().and_then(parse) {
            Some(value) => Ok(value),
            None => self.wrong(expected),
        }
    }

    /// One of a few words.
    pub(super) fn one_of<T: Copy>(&self, expected: &'static str, words: &[(&str, T)]) -> Result<T> {
        match words.iter().find(|(word, _)| self.plain() == Some(word)) {
            Some((_, value)) => Ok(*value),
            None => self.wrong(expected),
        }
    }

    /// A whole number, and not a text of digits, a fraction or a truth value.
    pub(super) fn number(self, expected: &'static str, range: RangeInclusive<u64>) -> Result<u64> {
        match &self.value {
            Value::Number(number) => number.as_u64().filter(|number| range.contains(number)),
            _ => None,
        }
        .map_or_else(|| self.wrong(expected), Ok)
    }

    pub(super) fn truth(self) -> Result<bool> {
        match self.value {
            Value::Bool(value) => Ok(value),
            _ => self.wrong("true or false"),
        }
    }

    pub(super) fn list(self, expected: &'static str) -> Result<Vec<Item>> {
        match self.value {
            Value::Sequence(items) if items.len() <= MAX_ITEMS => {
                let name = |(index, value)| Item { key: format!("{}[{index}]", self.key), value };
                Ok(items.into_iter().enumerate().map(name).collect())
            }
            _ => self.wrong(expected),
        }
    }

    /// A mapping with the keys that it may have.
    pub(super) fn section(self, expected: &'static str, known: &[&str]) -> Result<Section> {
        match self.value {
            Value::Mapping(map) => Section::new(self.key, map, known),
            _ => self.wrong(expected),
        }
    }

    /// A mapping whose keys are the user's own names.
    pub(super) fn entries(self, expected: &'static str) -> Result<Vec<(String, Item)>> {
        let map = match self.value {
            Value::Mapping(map) if map.len() <= MAX_ITEMS => map,
            _ => return self.wrong(expected),
        };
        let entry = |(key, value): (Value, Value)| match key {
            Value::String(name) => {
                let key = format!("{}.{}", self.key, cut(&name));
                Ok((name, Item { key, value }))
            }
            other => Err(CcConfigError::Value {
                key: self.key.clone(),
                expected: "texts as keys",
                found: shown(&other),
            }),
        };
        map.into_iter().map(entry).collect()
    }

    /// What NVFLARE passes to Python unchanged, as JSON.
    pub(super) fn json_object(self) -> Result<serde_json::Map<String, serde_json::Value>> {
        match &self.value {
            Value::Mapping(map) => match serde_json::to_value(map) {
                Ok(serde_json::Value::Object(object)) => Ok(object),
                _ => self.wrong("a mapping of names to JSON values"),
            },
            _ => self.wrong("a mapping of names to values"),
        }
    }
}
