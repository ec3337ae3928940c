//! Bounded forms of the builtins that could make gigabytes out of a short rule.
//!
//! The engine looks at its clock between builtins, not within them, and an allocation that fails
//! ends the process. So these builtins are answered here. The bounds are against mistakes and
//! hostile input. An author who wants to waste his own machine's time finds other ways.

use regorus::{Engine, Value};

/// The longest list that a builtin may make.
const MAX_ITEMS: usize = 100_000;
/// The longest text that a builtin may make.
const MAX_TEXT: usize = 1024 * 1024;
/// The widest field that `sprintf` may pad to has this many digits.
const MAX_WIDTH_DIGITS: usize = 3;

/// `Ok(Undefined)` is what OPA calls undefined: arguments of other types. An error stops the
/// policy.
type Answer = Result<Value, String>;

/// Its name, the number of its arguments, and what it does.
type Bounded = (&'static str, u8, fn(&[Value]) -> Answer);

/// Installs them in the place of the engine's own.
pub(crate) fn install(engine: &mut Engine) -> Result<(), String> {
    let bounded: [Bounded; 7] = [
        ("numbers.range", 2, range),
        ("numbers.range_step", 3, range),
        ("concat", 2, concat),
        ("array.concat", 2, array_concat),
        ("replace", 3, replace),
        ("sprintf", 2, sprintf),
        ("strings.replace_n", 2, |_| Err("may not be used; replace may".into())),
    ];
    for (name, arguments, builtin) in bounded {
        let answer = move |arguments: Vec<Value>| {
            builtin(&arguments)
                .map_err(|problem| std::io::Error::other(format!("{name}: {problem}")).into())
        };
        engine
            .add_extension(name.into(), arguments, Box::new(answer))
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `numbers.range(a, b)` and `numbers.range_step(a, b, step)`, both ends included.
fn range(arguments: &[Value]) -> Answer {
    let number =
        |at: usize| arguments.get(at).and_then(|value| value.as_i64().ok()).map(i128::from);
    let (Some(from), Some(to)) = (number(0), number(1)) else { return Ok(Value::Undefined) };
    let step = if arguments.len() == 3 { number(2) } else { Some(1) };
    let Some(step) = step.filter(|step| *step > 0) else { return Ok(Value::Undefined) };
    let count = (to - from).abs() / step;
    if count >= MAX_ITEMS as i128 {
        return Err(format!("at most {MAX_ITEMS} numbers"));
    }
    let step = if to < from { -step } else { step };
    let values = (0..=count).filter_map(|at| i64::try_from(from + at * step).ok().map(Value::from));
    Ok(Value::from(values.collect::<Vec<_>>()))
}

/// `concat(delimiter, strings)`.
fn concat(arguments: &[Value]) -> Answer {
    let [delimiter, items] = arguments else { return Ok(Value::Undefined) };
    let items: Vec<&Value> = match (items.as_array(), items.as_set()) {
        (Ok(array), _) => array.iter().collect(),
        (_, Ok(set)) => set.iter().collect(),
        _ => return Ok(Value::Undefined),
    };
    let Some(texts) = items.iter().map(|item| text(item)).collect::<Option<Vec<_>>>() else {
        return Ok(Value::Undefined);
    };
    let Some(delimiter) = text(delimiter) else { return Ok(Value::Undefined) };
    let length = texts
        .iter()
        .fold(0_usize, |sum, text| sum.saturating_add(text.len()).saturating_add(delimiter.len()));
    text_bound(length)?;
    Ok(Value::from(texts.join(delimiter)))
}

/// `array.concat(a, b)`.
fn array_concat(arguments: &[Value]) -> Answer {
    let [Ok(first), Ok(second)] =
        [0, 1].map(|at| arguments.get(at).unwrap_or(&Value::Undefined).as_array())
    else {
        return Ok(Value::Undefined);
    };
    if first.len().saturating_add(second.len()) > MAX_ITEMS {
        return Err(format!("at most {MAX_ITEMS} elements"));
    }
    Ok(Value::from(first.iter().chain(second.iter()).cloned().collect::<Vec<_>>()))
}

/// `replace(text, old, new)`.
fn replace(arguments: &[Value]) -> Answer {
    let [Some(whole), Some(old), Some(new)] = [0, 1, 2].map(|at| arguments.get(at).and_then(text))
    else {
        return Ok(Value::Undefined);
    };
    text_bound(whole.matches(old).count().saturating_mul(new.len()).saturating_add(whole.len()))?;
    Ok(Value::from(whole.replace(old, new)))
}

/// `sprintf(format, arguments)`: the engine's own, when no field is wider than three digits say.
fn sprintf(arguments: &[Value]) -> Answer {
    let [format, values] = arguments else { return Ok(Value::Undefined) };
    for field in text(format).unwrap_or_default().split('%').skip(1) {
        let options = field.chars().take_while(|c| c.is_numeric() || "+-# .".contains(*c));
        if options.filter(|c| c.is_numeric()).count() > MAX_WIDTH_DIGITS {
            return Err(format!("a field's width has at most {MAX_WIDTH_DIGITS} digits"));
        }
    }
    let mut engine = Engine::new();
    engine.set_input(Value::from(vec![format.clone(), values.clone()]));
    let results = engine
        .eval_query("sprintf(input[0], input[1])".into(), false)
        .map_err(|e| e.to_string())?;
    let value = results.result.first().and_then(|result| result.expressions.first());
    Ok(value.map_or(Value::Undefined, |expression| expression.value.clone()))
}

fn text(value: &Value) -> Option<&str> {
    value.as_string().ok().map(|text| text.as_ref())
}

fn text_bound(length: usize) -> Result<(), String> {
    if length > MAX_TEXT { Err(format!("at most {MAX_TEXT} bytes")) } else { Ok(()) }
}
