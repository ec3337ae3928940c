//! The body of the fuzz target of tokens, so that ordinary tests run it too. It may not panic.

use crate::token::Token;

/// Bytes as a token's text, and as the JSON in it.
pub fn agent_token(bytes: &[u8]) {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let check = |text: &str| {
        if let Ok(token) = Token::parse(text) {
            let _ = token.statement.digest();
            if let Ok(text) = token.text() {
                assert_eq!(Token::parse(&text), Ok(token));
            }
        }
    };
    if let Ok(text) = str::from_utf8(bytes) {
        check(text);
    }
    check(&URL_SAFE_NO_PAD.encode(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_tokens() {
        cvm_testkit::seeds::each_seed("agent_token", 2_000, agent_token);
    }
}
