/* SPDX-License-Identifier: MIT */
/* What an address of this program is called, by its own symbol table. */
#include "trace.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool name_in_table(const uint8_t *file, const Elf64_Shdr *table,
                          const Elf64_Shdr *names, uintptr_t at, char *text,
                          size_t size)
{
    const Elf64_Sym *sym = (const void *)(file + table->sh_offset);
    const Elf64_Sym *best = NULL;
    for (size_t i = 0; i < table->sh_size / sizeof *sym; i++) {
        bool function = ELF64_ST_TYPE(sym[i].st_info) == STT_FUNC;
        if (function && sym[i].st_value <= at &&
            at < sym[i].st_value + (sym[i].st_size ? sym[i].st_size : 64) &&
            (best == NULL || sym[i].st_value > best->st_value)) {
            best = &sym[i];
        }
    }
    if (best == NULL) {
        return false;
    }
    snprintf(text, size, "%s+0x%zx (0x%zx)",
             (const char *)file + names->sh_offset + best->st_name,
             (size_t)(at - best->st_value), (size_t)at);
    return true;
}

void trace_symbol(const void *address, char *text, size_t size)
{
    struct stat st = {.st_size = 0};
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    snprintf(text, size, "%p", address);
    if (fd < 0) {
        return;
    }
    const uint8_t *file = MAP_FAILED;
    if (fstat(fd, &st) == 0) {
        file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    }
    close(fd);
    if (file == MAP_FAILED) {
        return;
    }
    const Elf64_Ehdr *head = (const void *)file;
    const Elf64_Shdr *section = (const void *)(file + head->e_shoff);
    uintptr_t bias = getauxval(AT_ENTRY) - head->e_entry;
    for (size_t i = 0; i < head->e_shnum; i++) {
        if (section[i].sh_type == SHT_SYMTAB &&
            name_in_table(file, &section[i], &section[section[i].sh_link],
                          (uintptr_t)address - bias, text, size)) {
            break;
        }
    }
    munmap((void *)(uintptr_t)file, (size_t)st.st_size);
}
