//! A part of the catalogue that is either a constant of the binary or was read from a file.
//!
//! Embedded checks are constants that `build.rs` writes: a run allocates nothing for them. What comes from a file of the
//! host is read at run time and owned. Nobody who looks at a check needs to know which it is.

use std::fmt;
use std::ops::Deref;
use std::slice;

/// A constant, or an owned value of the same type.
pub enum Kept<T: ?Sized + 'static> {
    Constant(&'static T),
    Own(Box<T>),
}

impl<T: ?Sized> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Constant(value) => value,
            Self::Own(value) => value,
        }
    }
}

impl<T: Clone> Kept<T> {
    /// To change it; a constant is copied first.
    pub fn to_mut(&mut self) -> &mut T {
        if let Self::Constant(value) = self {
            *self = Self::Own(Box::new(T::clone(value)));
        }
        match self {
            Self::Own(value) => value,
            Self::Constant(_) => unreachable!("it was made our own above"),
        }
    }
}

impl<T: ?Sized> Clone for Kept<T>
where
    Box<T>: Clone,
{
    fn clone(&self) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(value),
            Self::Own(value) => Self::Own(value.clone()),
        }
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> From<T> for Kept<T> {
    fn from(value: T) -> Self {
        Self::Own(Box::new(value))
    }
}

impl<T> From<Vec<T>> for Kept<[T]> {
    fn from(values: Vec<T>) -> Self {
        if values.is_empty() { Self::Constant(&[]) } else { Self::Own(values.into_boxed_slice()) }
    }
}

impl<'a, T> IntoIterator for &'a Kept<[T]> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
