#define DYNAMIC_SHARED(t,n) t* n = static_cast<t*>(emulator_dynamic_shared())
