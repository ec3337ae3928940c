//! Bounds on recursion and nesting. OPA refuses the one and reads the other; regorus would follow
//! both until the stack or the day ends.
//!
//! Recursion is found by names: a function whose text leads back to its own name, over any other
//! rules, is refused. A local variable with a function's name counts as a mention. That errs on the
//! safe side.

use std::collections::{BTreeMap, BTreeSet};

use regorus::{
    Engine,
    unstable::{Rule, RuleHead},
};

/// A rule may lead to a rule, each on the stack of the one before: their number bounds the depth.
pub(crate) const MAX_RULES: usize = 1000;
/// The deepest nesting of brackets. The parser reads each level twice (as a comprehension, then as
/// a list), so the time doubles with each level. Policies have five or six.
const MAX_NESTING: usize = 10;

/// Refuses text that would keep the parser busy, by its line.
pub(crate) fn check_nesting(source: &str) -> Result<(), (u32, String)> {
    let (mut depth, mut line, mut rest) = (0_usize, 1_u32, source);
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '`' => string(rest, first),
            c => c.len_utf8(),
        };
        match first {
            '[' | '{' | '(' if depth == MAX_NESTING => {
                return Err((line, format!("brackets more than {MAX_NESTING} deep")));
            }
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let (before, after) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        line = line.saturating_add(u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX));
        rest = after;
    }
    Ok(())
}

/// Refuses a policy for a function that leads back to itself, with the line where it begins, or for
/// too many rules.
pub(crate) fn check(engine: &mut Engine) -> Result<(), (u32, String)> {
    let mut mentions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut functions: BTreeMap<String, u32> = BTreeMap::new();
    for module in engine.get_modules() {
        if module.policy.len() > MAX_RULES {
            return Err((0, format!("{} rules, at most {MAX_RULES} allowed", module.policy.len())));
        }
        for import in &module.imports {
            // An alias would hide the rules that it leads to.
            if words(import.refr.span().text()).iter().take(2).eq(["data", "policy"]) {
                return Err((import.span.line, "it imports itself".into()));
            }
        }
        for rule in &module.policy {
            let (head, function) = match rule.as_ref() {
                Rule::Spec { head: RuleHead::Func { refr, .. }, .. } => (refr, true),
                Rule::Spec {
                    head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. },
                    ..
                } => (refr, false),
                Rule::Default { refr, args, .. } => (refr, !args.is_empty()),
            };
            let head = words(head.span().text());
            let mut body = words(rule.span().text());
            for word in &head {
                if let Some(at) = body.iter().position(|mentioned| mentioned == word) {
                    body.swap_remove(at);
                }
            }
            let names = if function { head.last().into_iter().cloned().collect() } else { head };
            for name in names {
                if function {
                    functions.entry(name.clone()).or_insert(rule.span().line);
                }
                mentions.entry(name).or_default().extend(body.iter().cloned());
            }
        }
    }
    match functions.iter().find(|(name, _)| leads_to_itself(name, &mentions)) {
        Some((name, line)) => Err((*line, format!("the function {name} leads back to itself"))),
        None => Ok(()),
    }
}

fn leads_to_itself(name: &str, mentions: &BTreeMap<String, BTreeSet<String>>) -> bool {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&str> = vec![name];
    while let Some(at) = next.pop() {
        for mentioned in mentions.get(at).into_iter().flatten() {
            if mentioned == name {
                return true;
            }
            if mentions.contains_key(mentioned) && seen.insert(mentioned.as_str()) {
                next.push(mentioned);
            }
        }
    }
    false
}

/// Identifiers outside of comments and strings, and strings that are one identifier
/// (`data.policy["f"]`).
fn words(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' | '`' => {
                let length = string(rest, first);
                let content = rest.get(1..length.saturating_sub(1)).unwrap_or_default();
                if !content.is_empty() && content.chars().all(is_word) {
                    words.push(content.to_owned());
                }
                length
            }
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                words.extend(rest.get(..length).map(str::to_owned));
                length
            }
            c => c.len_utf8(),
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    words
}

/// The length of a string with its quotes; raw strings have no escapes.
fn string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_rule() {
        let found = words("f(x) := g[\"h\"] # i\n\"j k\" `l` \"m\\\"n\" o-p.q");
        assert_eq!(found, ["f", "x", "g", "h", "l", "o", "p", "q"]);
        assert!(words("\"").is_empty() && words("").is_empty());
        assert_eq!(words("é\u{1f600}\"").len(), 1);
    }
}
