/* SPDX-License-Identifier: MIT */
/*
 * Where functions lie: in a module, the executable or a shared library, at an
 * offset from where that was loaded, which is another address in each run. And
 * what runs before main: the executable's array of constructors is the last
 * that is run, whoever links the library how.
 */
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/os.h"

static uint64_t mix(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ byte[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static size_t round_up_4(size_t n)
{
    return (n + 3) & ~(size_t)3;
}

/* The note that the linker made of what it linked; false: it made none. */
static bool mix_build_id(uint64_t *hash, const char *at, size_t size)
{
    const char *end = at + size;
    while ((size_t)(end - at) >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) note;
        memcpy(&note, at, sizeof note);
        const char *name = at + sizeof note;
        const char *id = name + round_up_4(note.n_namesz);
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
            memcmp(name, "GNU", 4) == 0) {
            *hash = mix(*hash, id, note.n_descsz);
            return true;
        }
        at = id + round_up_4(note.n_descsz);
    }
    return false;
}

/* Tells a module from all others: by build id, else by name; and by size. */
static uint64_t print_of(const struct dl_phdr_info *module)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    bool has_id = false;
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        if (part->p_type == PT_LOAD) {
            hash = mix(hash, &part->p_memsz, sizeof part->p_memsz);
        } else if (part->p_type == PT_NOTE && !has_id) {
            const char *notes =
                (const char *)(module->dlpi_addr + part->p_vaddr);
            has_id = mix_build_id(&hash, notes, part->p_memsz);
        }
    }
    if (!has_id && module->dlpi_name != NULL) {
        const char *slash = strrchr(module->dlpi_name, '/');
        const char *name = slash != NULL ? slash + 1 : module->dlpi_name;
        hash = mix(hash, name, strlen(name));
    }
    return hash;
}

/* Does code of the module lie there? */
static bool has_code(const struct dl_phdr_info *module, uintptr_t address)
{
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        uintptr_t offset = address - module->dlpi_addr - part->p_vaddr;
        if (part->p_type == PT_LOAD && (part->p_flags & PF_X) &&
            offset < part->p_memsz) {
            return true;
        }
    }
    return false;
}

struct search {
    struct mpr_os_place place;
    uintptr_t address;
    bool found;
};

static int look_for_address(struct dl_phdr_info *module, size_t size,
                            void *user)
{
    struct search *search = user;
    (void)size;
    search->found = has_code(module, search->address);
    if (search->found) {
        search->place.module = print_of(module);
        search->place.offset = search->address - module->dlpi_addr;
    }
    return search->found;
}

static int look_for_place(struct dl_phdr_info *module, size_t size, void *user)
{
    struct search *search = user;
    (void)size;
    search->address = module->dlpi_addr + (uintptr_t)search->place.offset;
    search->found = print_of(module) == search->place.module &&
                    has_code(module, search->address);
    return search->found;
}

bool mpr_os_place_of(mpr_os_fn *fn, struct mpr_os_place *out)
{
    struct search search = {.address = (uintptr_t)fn};
    dl_iterate_phdr(look_for_address, &search);
    *out = search.place;
    return search.found;
}

mpr_os_fn *mpr_os_fn_at(const struct mpr_os_place *place)
{
    struct search search = {.place = *place};
    dl_iterate_phdr(look_for_place, &search);
    return search.found ? (mpr_os_fn *)search.address : NULL;
}

/* ---- what the program is linked with ---------------------------------- */

struct module {
    uintptr_t base;
    const char *path;
    const ElfW(Dyn) * dynamic;
    const char *strings; /* of the dynamic section */
    bool needed;
};

struct modules {
    struct module *all;
    size_t count;
    size_t room;
};

/* Some loaders write the address there, others leave the offset. */
static const char *strings_of(const struct module *module)
{
    for (const ElfW(Dyn) *entry = module->dynamic; entry->d_tag != DT_NULL;
         entry++) {
        if (entry->d_tag == DT_STRTAB) {
            uintptr_t at = entry->d_un.d_ptr;
            return (const char *)(at < module->base ? at + module->base : at);
        }
    }
    return NULL;
}

static int note_module(struct dl_phdr_info *info, size_t size, void *user)
{
    struct modules *modules = user;
    struct module module = {.base = info->dlpi_addr, .path = info->dlpi_name};
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) {
            module.dynamic =
                (const void *)(module.base + info->dlpi_phdr[i].p_vaddr);
            module.strings = strings_of(&module);
        }
    }
    if (modules->count == modules->room) {
        size_t room = modules->room * 2 + 16;
        struct module *more = realloc(modules->all, room * sizeof *more);
        if (more == NULL) {
            return 1;
        }
        modules->all = more;
        modules->room = room;
    }
    modules->all[modules->count++] = module;
    return 0;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

static bool has_name(const struct module *module, const char *name)
{
    if (module->path != NULL &&
        strcmp(file_name(module->path), file_name(name)) == 0) {
        return true;
    }
    for (const ElfW(Dyn) *entry = module->dynamic;
         module->strings != NULL && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SONAME) {
            return strcmp(module->strings + entry->d_un.d_val, name) == 0;
        }
    }
    return false;
}

static void mark_needed(struct modules *modules, const struct module *by)
{
    for (const ElfW(Dyn) *entry = by->dynamic;
         by->strings != NULL && entry->d_tag != DT_NULL; entry++) {
        for (size_t i = 0; entry->d_tag == DT_NEEDED && i < modules->count;
             i++) {
            struct module *module = &modules->all[i];
            module->needed |= has_name(module, by->strings + entry->d_un.d_val);
        }
    }
}

/* Returns how many are needed, before this pass. */
static size_t mark_by_all_needed(struct modules *modules)
{
    size_t count = 0;
    for (size_t i = 0; i < modules->count; i++) {
        if (modules->all[i].needed) {
            count++;
            mark_needed(modules, &modules->all[i]);
        }
    }
    return count;
}

/* The executable comes first; what is needed by what is needed is needed. */
static void mark_all_needed(struct modules *modules)
{
    size_t before = 0, count = 0;
    modules->all[0].needed = true;
    do {
        before = count;
        count = mark_by_all_needed(modules);
    } while (count != before);
}

static bool is_preloaded(const char *path)
{
    const char *preloads = getenv("LD_PRELOAD");
    return preloads != NULL && path != NULL && *path != '\0' &&
           strstr(preloads, file_name(path)) != NULL;
}

bool mpr_os_is_linked(mpr_os_fn *fn)
{
    struct modules modules = {NULL, 0, 0};
    struct search search = {.address = (uintptr_t)fn};
    bool linked = false;
    dl_iterate_phdr(note_module, &modules);
    dl_iterate_phdr(look_for_address, &search);
    if (modules.count > 0 && search.found) {
        uintptr_t base = search.address - (uintptr_t)search.place.offset;
        mark_all_needed(&modules);
        for (size_t i = 0; i < modules.count; i++) {
            const struct module *module = &modules.all[i];
            linked |= module->base == base &&
                      (module->needed || is_preloaded(module->path));
        }
    }
    free(modules.all);
    return linked;
}

/* ---- instead of main -------------------------------------------------- */

typedef void constructor(int argc, char **argv, char **envp);

/* The linker's own names, of what this is linked into; not in all links. */
extern constructor *__init_array_start[]
    __attribute__((weak, visibility("hidden")));
extern constructor *__init_array_end[]
    __attribute__((weak, visibility("hidden")));

struct constructors {
    constructor **first;
    size_t count;
    uintptr_t relro, relro_end; /* read-only once loaded */
};

static void find_in_dynamic(const ElfW(Dyn) * entry, uintptr_t base,
                            struct constructors *out)
{
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_INIT_ARRAY) {
            out->first = (constructor **)(base + entry->d_un.d_ptr);
        } else if (entry->d_tag == DT_INIT_ARRAYSZ) {
            out->count = entry->d_un.d_val / sizeof(constructor *);
        }
    }
}

/* The executable comes first. */
static int find_constructors(struct dl_phdr_info *module, size_t size,
                             void *user)
{
    struct constructors *out = user;
    uintptr_t base = module->dlpi_addr;
    (void)size;
    for (int i = 0; i < module->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &module->dlpi_phdr[i];
        uintptr_t begin = base + part->p_vaddr;
        if (part->p_type == PT_DYNAMIC) {
            find_in_dynamic((const ElfW(Dyn) *)begin, base, out);
        } else if (part->p_type == PT_GNU_RELRO) {
            out->relro = begin;
            out->relro_end = begin + part->p_memsz;
        }
    }
    return 1;
}

static constructor *last_of_all;
static void (*instead)(void);

static void run_last(int argc, char **argv, char **envp)
{
    last_of_all(argc, argv, envp);
    instead();
}

static bool replace(constructor **entry, const struct constructors *all)
{
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t page = (uintptr_t)entry & ~(page_size - 1);
    bool relro =
        (uintptr_t)entry >= all->relro && (uintptr_t)entry < all->relro_end;
    if (relro &&
        mprotect((void *)page, page_size, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    last_of_all = *entry;
    *(constructor *volatile *)entry = run_last;
    if (relro) {
        mprotect((void *)page, page_size, PROT_READ);
    }
    return true;
}

bool mpr_os_instead_of_main(void (*fn)(void))
{
    struct constructors all = {0};
    dl_iterate_phdr(find_constructors, &all);
    if (all.count == 0) { /* static, or an executable that has none */
        all.first = __init_array_start;
        all.count = (size_t)(__init_array_end - __init_array_start);
    }
    instead = fn;
    return all.count > 0 && replace(&all.first[all.count - 1], &all);
}
