//! The image's file system while its layers are applied: in memory, names and links only.
//!
//! No link is ever followed on the builder's disk. Where a layer's path goes through a link of an
//! earlier layer, the link is resolved here, and the root's parent is the root, as in the
//! container.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use cvm_base::interrupt;

use crate::WorkError;

/// Deeper folders are refused: no image has them, and walks over the tree recurse.
const MAX_DEPTH: usize = 128;
/// As many as a kernel follows.
const MAX_LINKS: usize = 40;
/// Linux's `NAME_MAX`.
const MAX_COMPONENT: usize = 255;
const FOLDER_MODE: u32 = 0o755;

/// A node's number.
pub(super) type Id = usize;

/// A folder, file or link.
pub(super) enum Node {
    /// Permission bits and entries.
    Folder(u32, BTreeMap<Vec<u8>, FolderEntry>),
    /// Permission bits, and the number of its content.
    File(u32, usize),
    /// What it points to.
    Link(Vec<u8>),
}

/// A name in a folder.
pub(super) struct FolderEntry {
    node: Id,
    /// The layer that set it last.
    layer: usize,
}

/// A path's components, from the root.
pub(super) type Components = Vec<Vec<u8>>;

/// Why a path leads nowhere.
pub(super) type Problem = &'static str;

/// The file system.
pub(super) struct Tree {
    nodes: Vec<Node>,
}

const ROOT: Id = 0;

/// Splits a name of an archive. `..` is refused, and so is what starts at the builder's root.
pub(super) fn components(name: &[u8]) -> Result<Components, Problem> {
    if name.starts_with(b"/") {
        return Err("is an absolute path");
    }
    let parts: Components = name
        .split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && part != b".")
        .map(<[u8]>::to_vec)
        .collect();
    if parts.iter().any(|part| part == b"..") {
        return Err("leads out of the image");
    }
    if parts.len() > MAX_DEPTH || parts.iter().any(|part| part.len() > MAX_COMPONENT) {
        return Err("is too deep or too long");
    }
    Ok(parts)
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::Folder(FOLDER_MODE, BTreeMap::new())] }
    }

    fn folder(&mut self, id: Id) -> Option<&mut BTreeMap<Vec<u8>, FolderEntry>> {
        match self.nodes.get_mut(id) {
            Some(Node::Folder(_, entries)) => Some(entries),
            _ => None,
        }
    }

    pub(super) fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id)
    }

    fn child(&self, id: Id, name: &[u8]) -> Option<Id> {
        match self.nodes.get(id) {
            Some(Node::Folder(_, entries)) => entries.get(name).map(|entry| entry.node),
            _ => None,
        }
    }

    /// The folder that `path` leads to, links followed; with a layer, missing folders are made in
    /// it.
    pub(super) fn walk(&mut self, path: &[Vec<u8>], make: Option<usize>) -> Result<Id, Problem> {
        let mut rest: VecDeque<Vec<u8>> = path.iter().cloned().collect();
        let (mut way, mut links) = (vec![ROOT], 0);
        while let Some(part) = rest.pop_front() {
            let here = way.last().copied().unwrap_or(ROOT);
            if part == b".." {
                way.truncate((way.len() - 1).max(1));
                continue;
            }
            let next = match (self.child(here, &part), make) {
                (Some(next), _) => next,
                (None, Some(layer)) => {
                    self.put(here, &part, Node::Folder(FOLDER_MODE, BTreeMap::new()), layer)
                }
                (None, None) => return Err("is not there"),
            };
            match self.nodes.get(next) {
                Some(Node::Folder(..)) if way.len() > MAX_DEPTH => {
                    return Err("is too deep or too long");
                }
                Some(Node::Folder(..)) => way.push(next),
                Some(Node::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("goes through too many links");
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    let parts = target
                        .split(|b| *b == b'/')
                        .filter(|part| !part.is_empty() && part != b".");
                    for part in parts.rev() {
                        rest.push_front(part.to_vec());
                    }
                }
                _ => return Err("goes through something that is not a folder"),
            }
        }
        Ok(way.last().copied().unwrap_or(ROOT))
    }

    /// The folder and the last component of a path; nothing for the root itself.
    pub(super) fn parent<'a>(
        &mut self,
        path: &'a [Vec<u8>],
        make: Option<usize>,
    ) -> Result<Option<(Id, &'a [u8])>, Problem> {
        let Some((name, parent)) = path.split_last() else { return Ok(None) };
        Ok(Some((self.walk(parent, make)?, name)))
    }

    /// The node at a path, whose last component is not followed.
    pub(super) fn find(&mut self, path: &[Vec<u8>]) -> Result<Id, Problem> {
        match self.parent(path, None)? {
            Some((folder, name)) => self.child(folder, name).ok_or("is not there"),
            None => Ok(ROOT),
        }
    }

    /// Puts a new node at a name, in place of what was there.
    pub(super) fn put(&mut self, folder: Id, name: &[u8], node: Node, layer: usize) -> Id {
        let id = self.unnamed(node);
        self.link(folder, name, id, layer);
        id
    }

    /// A new node that no name leads to yet.
    pub(super) fn unnamed(&mut self, node: Node) -> Id {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Gives a node a name.
    pub(super) fn link(&mut self, folder: Id, name: &[u8], node: Id, layer: usize) {
        if let Some(entries) = self.folder(folder) {
            entries.insert(name.to_vec(), FolderEntry { node, layer });
        }
    }

    /// Makes a folder, or sets the mode of the one that is there.
    pub(super) fn put_folder(&mut self, folder: Id, name: &[u8], mode: u32, layer: usize) {
        let there = self.child(folder, name);
        match there.and_then(|id| Some((id, self.nodes.get_mut(id)?))) {
            Some((id, Node::Folder(old, _))) => {
                *old = mode;
                self.link(folder, name, id, layer);
            }
            _ => drop(self.put(folder, name, Node::Folder(mode, BTreeMap::new()), layer)),
        }
    }

    pub(super) fn set_root_mode(&mut self, mode: u32) {
        if let Some(Node::Folder(old, _)) = self.nodes.get_mut(ROOT) {
            *old = mode;
        }
    }

    /// A whiteout: removes what earlier layers have at a name.
    pub(super) fn hide(&mut self, folder: Id, name: &[u8], layer: usize) {
        let Some(entry) = self.folder(folder).and_then(|entries| entries.remove(name)) else {
            return;
        };
        let emptied = self.hide_below(entry.node, layer);
        if entry.layer == layer || !emptied {
            self.link(folder, name, entry.node, entry.layer);
        }
    }

    /// An opaque folder: removes what earlier layers have in it. Says whether nothing is left.
    pub(super) fn hide_below(&mut self, id: Id, layer: usize) -> bool {
        let Some(entries) = self.folder(id) else { return true };
        let names: Components = entries.keys().cloned().collect();
        names.iter().for_each(|name| self.hide(id, name, layer));
        self.folder(id).is_none_or(|entries| entries.is_empty())
    }

    /// The program at an absolute path, links followed: whether it is there, and may be executed.
    pub(super) fn is_program(&mut self, path: &[u8]) -> bool {
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let parts: Components = path
                .split(|b| *b == b'/')
                .filter(|p| !p.is_empty() && *p != b".")
                .map(<[u8]>::to_vec)
                .collect();
            let Ok(Some((folder, name))) = self.parent(&parts, None) else { return false };
            match self.child(folder, name).and_then(|id| self.nodes.get(id)) {
                Some(Node::File(mode, _)) => return mode & 0o111 != 0,
                Some(Node::Link(target)) if target.starts_with(b"/") => path.clone_from(target),
                Some(Node::Link(target)) => {
                    let parent = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
                    path.truncate(parent);
                    path.push(b'/');
                    path.extend(target);
                }
                _ => return false,
            }
        }
        false
    }

    /// Every name that matches, wherever it is.
    pub(super) fn names(&self, matches: &dyn Fn(&str) -> bool) -> Vec<String> {
        let (mut found, mut todo) = (Vec::new(), vec![ROOT]);
        while let Some(id) = todo.pop() {
            let Some(Node::Folder(_, entries)) = self.nodes.get(id) else { continue };
            for (name, entry) in entries {
                found.extend(
                    std::str::from_utf8(name).ok().filter(|name| matches(name)).map(str::to_owned),
                );
                todo.push(entry.node);
            }
        }
        found
    }

    /// Writes the file system to the new folder `to`. The files that `content` names move to their
    /// places. Everything will belong to the service, so the owner may read all of it.
    pub(super) fn write(
        &self,
        to: &Path,
        content: &dyn Fn(usize) -> PathBuf,
    ) -> Result<(), WorkError> {
        self.write_node(ROOT, to, content, &mut BTreeMap::new())
    }

    fn write_node(
        &self,
        id: Id,
        to: &Path,
        content: &dyn Fn(usize) -> PathBuf,
        written: &mut BTreeMap<Id, PathBuf>,
    ) -> Result<(), WorkError> {
        interrupt::checkpoint();
        let mode = |mode| {
            fs::set_permissions(to, Permissions::from_mode(mode))
                .map_err(WorkError::io("set the mode of", to))
        };
        if let Some(first) = written.get(&id) {
            return fs::hard_link(first, to).map_err(WorkError::io("link", to));
        }
        match self.nodes.get(id) {
            Some(Node::Folder(bits, entries)) => {
                fs::create_dir(to).map_err(WorkError::io("make", to))?;
                for (name, entry) in entries {
                    self.write_node(
                        entry.node,
                        &to.join(OsStr::from_bytes(name)),
                        content,
                        written,
                    )?;
                }
                mode(bits & 0o1777 | 0o700)
            }
            Some(Node::File(bits, number)) => {
                fs::rename(content(*number), to).map_err(WorkError::io("make", to))?;
                written.insert(id, to.to_owned());
                mode(bits & 0o777 | 0o400)
            }
            Some(Node::Link(target)) => {
                symlink(OsStr::from_bytes(target), to)
                    .map_err(WorkError::io("make the link", to))?;
                written.insert(id, to.to_owned());
                Ok(())
            }
            None => Ok(()),
        }
    }
}
