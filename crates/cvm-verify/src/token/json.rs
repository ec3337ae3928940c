//! JSON as a signature needs it: bounded, shallow, and no member twice.
//!
//! RFC 8259 leaves duplicate members to the parser, so a verifier that reads the first and a
//! program that reads the last believe different things under one signature. RFC 7515 §4 and RFC
//! 7519 §4 allow to refuse them.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::TokenError;

/// The deepest token known (NRAS, with certificate claims) has 4 levels.
const MAX_DEPTH: usize = 32;

/// Reads an object with nothing after it.
pub(super) fn object(what: &'static str, bytes: &[u8]) -> Result<Map<String, Value>, TokenError> {
    match value(what, bytes)? {
        Value::Object(map) => Ok(map),
        other => Err(TokenError::malformed(
            what,
            format!("expected a JSON object, found {}", kind(&other)),
        )),
    }
}

/// Reads any value with nothing after it.
pub(crate) fn value(what: &'static str, bytes: &[u8]) -> Result<Value, TokenError> {
    let fail = |e: serde_json::Error| TokenError::malformed(what, e.to_string());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(fail)?;
    reader.end().map_err(fail)?;
    Ok(value)
}

/// What a value is, for messages: never its content, which may be long.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Enough of a stranger's text for a message.
pub(super) fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number without a value"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if members.contains_key(&name) {
                let name: String = name.chars().take(60).collect();
                return Err(A::Error::custom(format_args!("the member {name:?} is given twice")));
            }
            let value = access.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_what_two_parsers_would_read_differently() {
        for bad in [
            r#"{"iss":"a","iss":"b"}"#,
            r#"{"a":{"x":1,"x":1}}"#,
            // The same name, written with an escape.
            r#"{"iss":"a","\u0069ss":"b"}"#,
            r#"{"a":1} "#.repeat(2).as_str(),
            r#"{"a":1e999}"#,
            r#"{"a":NaN}"#,
            "{\"a\":\"\u{1}\"}",
            "\u{feff}{}",
            "",
            "{",
            "null",
        ] {
            assert!(object("claims", bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(
            object("claims", &[b'{', b'"', 0xff, b'"', b':', b'1', b'}']).is_err(),
            "not UTF-8"
        );
        let same = value("claims", br#"{"a":[1,-1,1.5,"s",null,true,{}]}"#).unwrap();
        assert_eq!(same, serde_json::json!({"a": [1, -1, 1.5, "s", null, true, {}]}));
    }

    #[test]
    fn attack_nesting() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(value("claims", nested(MAX_DEPTH).as_bytes()).is_ok());
        for depth in [MAX_DEPTH + 1, 100_000] {
            let error = value("claims", nested(depth).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("deep"), "{error}");
            assert!(value("claims", "{\"a\":".repeat(depth).as_bytes()).is_err());
        }
    }
}
