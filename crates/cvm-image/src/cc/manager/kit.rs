//! The components that a kit configures, from the files that NVFLARE reads in the parent process
//! (`nvflare.apis.workspace.Workspace.get_config_files_for_startup`).

use std::{fs, path::Path};

use cvm_layout::names::Role;
use serde_json::{Map, Value};

use super::ManagerError;
use crate::{WorkError, cc::section::cut};

/// More than any of the files needs.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// One component.
pub(super) struct Component {
    /// The file, relative to the kit.
    pub(super) file: String,
    pub(super) id: String,
    /// Its Python class.
    pub(super) path: String,
    pub(super) args: Map<String, Value>,
}

/// A value as an error shows it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => cut(&other.to_string()),
    }
}

impl Component {
    /// An argument as an error names it.
    pub(super) fn place(&self, argument: &str) -> String {
        format!("{} ({}).{argument}", self.file, self.id)
    }

    pub(super) fn wrong<T>(
        &self,
        argument: &str,
        expected: &'static str,
        found: &Value,
    ) -> Result<T, ManagerError> {
        Err(ManagerError::Value { place: self.place(argument), expected, found: shown(found) })
    }

    /// Refuses arguments that are not `known`: Python would, at the start of the site.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ManagerError> {
        only(&self.args, known, |argument| self.place(argument))
    }

    /// A list of at least one text.
    pub(super) fn names(
        &self,
        argument: &str,
        expected: &'static str,
    ) -> Result<Vec<&str>, ManagerError> {
        let value = self.args.get(argument).unwrap_or(&Value::Null);
        let names = value
            .as_array()
            .and_then(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        match names.filter(|names| !names.is_empty() && names.iter().all(|name| !name.is_empty())) {
            Some(names) => Ok(names),
            None => self.wrong(argument, expected, value),
        }
    }
}

/// Refuses keys that are not `known`.
pub(super) fn only(
    map: &Map<String, Value>,
    known: &[&str],
    place: impl Fn(&str) -> String,
) -> Result<(), ManagerError> {
    let Some(key) = map.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let closest = crate::cc::section::closest(key, known.iter().copied()).map(str::to_owned);
    Err(ManagerError::UnknownArgument { place: place(&cut(key)), closest, known: known.join(", ") })
}

/// One of the kit's JSON files.
pub(super) fn read(kit: &Path, file: &str) -> Result<Value, ManagerError> {
    let bytes = cvm_base::read_bounded(&kit.join(file), MAX_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|e| ManagerError::Value {
        place: file.into(),
        expected: "JSON",
        found: e.to_string(),
    })
}

/// The site's resources file: its own, or else NVFLARE's default.
pub(super) fn resources_file(kit: &Path) -> &'static str {
    let own = "local/resources.json";
    if kit.join(own).is_file() { own } else { "local/resources.json.default" }
}

/// All components that NVFLARE's parent process makes.
pub(super) fn components(kit: &Path, role: Role) -> Result<Vec<Component>, ManagerError> {
    let mut files = vec![format!("startup/fed_{role}.json"), resources_file(kit).to_owned()];
    for folder in ["startup", "local"] {
        let path = kit.join(folder);
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(WorkError::io("list", &path))?;
        let mut names: Vec<_> =
            entries.into_iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| {
            name.ends_with("__p_resources.json") || name.ends_with("__resources.json")
        });
        names.sort();
        files.extend(names.into_iter().map(|name| format!("{folder}/{name}")));
    }
    let mut components: Vec<Component> = Vec::new();
    for file in files {
        let value = read(kit, &file)?;
        for (at, entry) in
            value.get("components").and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            let component = component(&file, at, entry)?;
            if let Some(first) = components.iter().find(|other| other.id == component.id) {
                let (first, second) = (first.place("id"), component.place("id"));
                return Err(ManagerError::Twice { first, second, problem: "the same id" });
            }
            components.push(component);
        }
    }
    Ok(components)
}

fn component(file: &str, at: usize, entry: &Value) -> Result<Component, ManagerError> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let wrong = |key: &str, expected| ManagerError::Value {
        place: format!("{file}: components[{at}].{key}"),
        expected,
        found: entry.get(key).map_or("nothing".into(), shown),
    };
    let args = match entry.get("args") {
        None => Map::new(),
        Some(Value::Object(args)) => args.clone(),
        Some(_) => return Err(wrong("args", "an object")),
    };
    // NVFLARE's own components may be named by class alone; no CC component is.
    let path =
        text("path").or_else(|| text("name")).ok_or_else(|| wrong("path", "a Python class"))?;
    Ok(Component {
        file: file.into(),
        id: text("id").ok_or_else(|| wrong("id", "a text"))?,
        path,
        args,
    })
}
