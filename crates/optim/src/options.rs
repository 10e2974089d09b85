//! Hyperparameters as named numbers: what groups override, schedules change and state dicts hold.

/// A type of hyperparameter that a number stands for.
pub trait Setting: Copy {
    /// As a number.
    fn to_number(self) -> f64;
    /// From a number; an error says which numbers there are.
    fn from_number(x: f64) -> Result<Self, String>;
}
impl Setting for f64 {
    fn to_number(self) -> f64 {
        self
    }
    fn from_number(x: f64) -> Result<Self, String> {
        Ok(x)
    }
}
impl Setting for bool {
    fn to_number(self) -> f64 {
        self as u8 as f64
    }
    fn from_number(x: f64) -> Result<Self, String> {
        match x {
            0.0 => Ok(false),
            1.0 => Ok(true),
            _ => Err("0 or 1".to_string()),
        }
    }
}
impl Setting for usize {
    fn to_number(self) -> f64 {
        self as f64
    }
    fn from_number(x: f64) -> Result<Self, String> {
        // 2⁵³: beyond, not every integer is an f64.
        let whole = x.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&x);
        if whole { Ok(x as usize) } else { Err("a whole number".to_string()) }
    }
}

/// Defines a rule's struct with its defaults, its `Default`, a setter on [`Stepper`](crate::Stepper) for each
/// hyperparameter, and the two methods by which [`Rule`](crate::Rule) reaches them by name.
macro_rules! hyperparameters {
    ($(#[$meta:meta])* $rule:ident { $($(#[$doc:meta])* $field:ident: $t:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $rule {
            $($(#[$doc])* pub $field: $t,)*
        }
        impl Default for $rule {
            fn default() -> Self {
                $rule { $($field: $default,)* }
            }
        }
        impl $crate::Stepper<$rule> {
            $(
                $(#[$doc])*
                ///
                /// Holds for every group that does not set its own.
                ///
                /// # Panics
                /// If the value is outside its domain.
                #[track_caller]
                pub fn $field(self, $field: $t) -> Self {
                    self.with_option(stringify!($field), $crate::Setting::to_number($field))
                }
            )*
        }
        impl $rule {
            fn get_all(&self) -> Vec<(&'static str, f64)> {
                vec![$((stringify!($field), $crate::Setting::to_number(self.$field)),)*]
            }
            fn set(&mut self, name: &str, value: f64) -> Result<(), String> {
                match name {
                    $(stringify!($field) => {
                        self.$field = $crate::Setting::from_number(value)
                            .map_err(|domain: String| format!("{name} must be {domain}, got {value}"))?;
                        Ok(())
                    })*
                    _ => Err(format!("no option {name:?}; there are {}", [$(stringify!($field)),*].join(", "))),
                }
            }
        }
    };
}
pub(crate) use hyperparameters;

/// The methods of [`Rule`](crate::Rule) that `hyperparameters!` prepared.
macro_rules! named_options {
    () => {
        fn options(&self) -> Vec<(&'static str, f64)> {
            self.get_all()
        }
        fn set_option(&mut self, name: &str, value: f64) -> Result<(), String> {
            self.set(name, value)
        }
    };
}
pub(crate) use named_options;

/// `name` must be at least 0 and finite.
pub(crate) fn not_negative(values: &[(&str, f64)]) -> Result<(), String> {
    match values.iter().find(|(_, v)| !(*v >= 0.0 && v.is_finite())) {
        Some((name, v)) => Err(format!("{name} must be ≥ 0 and finite, got {v}")),
        None => Ok(()),
    }
}
/// `name` must lie in [0, 1).
pub(crate) fn fraction(values: &[(&str, f64)]) -> Result<(), String> {
    match values.iter().find(|(_, v)| !(0.0..1.0).contains(v)) {
        Some((name, v)) => Err(format!("{name} must be in [0, 1), got {v}")),
        None => Ok(()),
    }
}
