//! One layer onto the file system (OCI image specification, "Image Layer Filesystem Changeset").

use std::{collections::BTreeMap, io::Read};

use tar::EntryType;

use super::{
    ArchiveError,
    bounds::Budget,
    entries::{self, EntryHeader},
    tree::{self, Components, Node, Tree},
};

/// The prefix of a name that hides an earlier one.
const WHITEOUT: &[u8] = b".wh.";
/// A folder that hides what earlier layers have in it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files at a layer's root: the storage of older versions of Docker, which Docker passes
/// over.
const METADATA: &[u8] = b".wh..wh.";
/// Where AUFS keeps a file that has several names in a layer.
const LINKED: &[u8] = b".wh..wh.plnk";

/// What was left out on the way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cleared {
    /// Files that had a set-user-id or set-group-id bit.
    pub set_id: usize,
    /// Files that had capabilities.
    pub capabilities: usize,
}

/// Keeps a file's bytes, and gives the number under which it did.
pub(super) type Keep<'a> = dyn FnMut(&mut dyn Read) -> Result<usize, ArchiveError> + 'a;

/// Where one layer is applied.
pub(super) struct Layer<'a> {
    name: &'a str,
    /// Its place among the layers, from 1.
    number: usize,
    tree: &'a mut Tree,
    cleared: &'a mut Cleared,
    /// The files in [`LINKED`], for the hard links of this layer only.
    linked: BTreeMap<Vec<u8>, tree::Id>,
}

impl<'a> Layer<'a> {
    pub(super) fn new(
        name: &'a str,
        number: usize,
        tree: &'a mut Tree,
        cleared: &'a mut Cleared,
    ) -> Self {
        Self { name, number, tree, cleared, linked: BTreeMap::new() }
    }

    /// Reads the layer's tar stream to its last entry.
    pub(super) fn apply(
        &mut self,
        stream: impl Read,
        budget: &Budget,
        keep: &mut Keep,
    ) -> Result<(), ArchiveError> {
        let name = self.name;
        entries::each_entry(name, stream, budget, &mut |meta, content| {
            self.entry(meta, content, keep)
        })
    }

    fn entry(
        &mut self,
        meta: &EntryHeader,
        content: &mut dyn Read,
        keep: &mut Keep,
    ) -> Result<(), ArchiveError> {
        let path = tree::components(&meta.name).map_err(|problem| self.refusal(meta, problem))?;
        let Some((last, parents)) = path.split_last() else {
            if meta.kind != EntryType::Directory {
                return Err(self.refusal(meta, "names the root and is not a folder"));
            }
            self.tree.set_root_mode(meta.mode);
            return Ok(());
        };
        if path.first().is_some_and(|first| first.starts_with(METADATA) && first != OPAQUE) {
            if meta.kind == EntryType::Regular && matches!(parents, [folder] if folder == LINKED) {
                self.count(meta);
                let node = self.tree.unnamed(Node::File(meta.mode, keep(content)?));
                self.linked.insert(last.clone(), node);
            }
            return Ok(());
        }
        if parents.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(self.refusal(meta, "lies in a whiteout"));
        }
        match last.strip_prefix(WHITEOUT) {
            Some(hidden) => self.whiteout(meta, parents, last, hidden),
            None => self.put(meta, parents, last, content, keep),
        }
    }

    fn refusal(&self, meta: &EntryHeader, problem: tree::Problem) -> ArchiveError {
        ArchiveError::Path { layer: self.name.into(), name: meta.shown(), problem }
    }

    /// Hides what earlier layers have: one name of a folder, or all of them.
    fn whiteout(
        &mut self,
        meta: &EntryHeader,
        parents: &[Vec<u8>],
        last: &[u8],
        hidden: &[u8],
    ) -> Result<(), ArchiveError> {
        // In a folder that is not there, there is nothing to hide.
        let Ok(folder) = self.tree.walk(parents, None) else { return Ok(()) };
        match last {
            OPAQUE => drop(self.tree.hide_below(folder, self.number)),
            _ if hidden.is_empty() => {
                return Err(self.refusal(meta, "is not a whiteout that is known"));
            }
            _ => self.tree.hide(folder, hidden, self.number),
        }
        Ok(())
    }

    /// Puts a folder, file or link at its name.
    fn put(
        &mut self,
        meta: &EntryHeader,
        parents: &[Vec<u8>],
        last: &[u8],
        content: &mut dyn Read,
        keep: &mut Keep,
    ) -> Result<(), ArchiveError> {
        let number = self.number;
        let folder = self.tree.walk(parents, Some(number));
        let folder = folder.map_err(|problem| self.refusal(meta, problem))?;
        match meta.kind {
            EntryType::Directory => self.tree.put_folder(folder, last, meta.mode, number),
            EntryType::Regular => {
                self.count(meta);
                let node = Node::File(meta.mode, keep(content)?);
                self.tree.put(folder, last, node, number);
            }
            EntryType::Symlink if meta.link.is_empty() => {
                return Err(self.refusal(meta, "is a link to nothing"));
            }
            EntryType::Symlink => {
                self.tree.put(folder, last, Node::Link(meta.link.clone()), number);
            }
            EntryType::Link => {
                let target = self.hard_link(&meta.link);
                let target = target.map_err(|problem| self.refusal(meta, problem))?;
                self.tree.link(folder, last, target, number);
            }
            kind => {
                let (layer, name) = (self.name.into(), meta.shown());
                return Err(ArchiveError::Kind { layer, name, kind: special(kind) });
            }
        }
        Ok(())
    }

    /// Nothing in the guest needs such bits, and its mounts would not honour them.
    fn count(&mut self, meta: &EntryHeader) {
        self.cleared.set_id += usize::from(meta.mode & 0o6000 != 0);
        self.cleared.capabilities += usize::from(meta.capabilities);
    }

    /// The node that a hard link means: a file or link of the image, never a folder.
    fn hard_link(&mut self, target: &[u8]) -> Result<tree::Id, tree::Problem> {
        let path: Components =
            tree::components(target).map_err(|_| "is a hard link out of the image")?;
        if let [folder, name] = path.as_slice()
            && folder == LINKED
        {
            return self.linked.get(name).copied().ok_or("is a hard link to nothing");
        }
        let id = self.tree.find(&path).map_err(|_| "is a hard link to nothing")?;
        match self.tree.node(id) {
            Some(Node::File(..) | Node::Link(_)) => Ok(id),
            _ => Err("is a hard link to a folder"),
        }
    }
}

/// What an entry is that a workload cannot have.
fn special(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char | EntryType::Block => "a device node",
        EntryType::Fifo => "a named pipe",
        EntryType::GNUSparse => "a sparse file, which `docker save` does not write",
        _ => "of a kind that no file system has",
    }
}
